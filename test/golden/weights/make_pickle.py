"""Makes protocol_0.pkl … protocol_5.pkl: one object through every pickle protocol. Needs only Python: python3 make_pickle.py"""
import collections
import pathlib
import pickle

here = pathlib.Path(__file__).parent
shared = [7]
thing = {
    "a": [1, -2, 300, 70000, -70000, 2**40, -(2**63), 2**100],
    b"b": (1.5, None, True, False),
    "text": "caf\u00e9 \u4e2d",
    "d": collections.OrderedDict(x=1, y=(2,)),
    "e": (),
    "s": "quote' \"\n\\",
    "p": shared,
    "q": shared,
    "set": {5},
    "call": complex(1, 2),
}
for protocol in range(6):
    (here / f"protocol_{protocol}.pkl").write_bytes(pickle.dumps(thing, protocol=protocol))
