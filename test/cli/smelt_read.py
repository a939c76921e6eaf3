"""smelt_read: strict readers of what train writes, independent of the program's own code. A file that bends a rule raises."""

import json
import pickle
import pickletools
import re
import struct
import zipfile
import zlib

DTYPES = {"F32": 4, "I64": 8}


class Bad(Exception):
    """The file breaks its format."""


def need(condition, text):
    if not condition:
        raise Bad(text)


# --- the network, spelled out once more on purpose ------------------------------------------------------------------


def resnet34_shapes(stem="imagenet", classes=100):
    """torchvision's resnet34 state dict: name -> shape, in torchvision's order."""
    shapes = {}

    def norm(name, k):
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = [k]
        shapes[f"{name}.num_batches_tracked"] = []

    shapes["conv1.weight"] = [64, 3, 7, 7] if stem == "imagenet" else [64, 3, 3, 3]
    norm("bn1", 64)
    inputs = 64
    for layer, (k, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = [k, inputs, 3, 3]
            norm(f"{name}.bn1", k)
            shapes[f"{name}.conv2.weight"] = [k, k, 3, 3]
            norm(f"{name}.bn2", k)
            if inputs != k:
                shapes[f"{name}.downsample.0.weight"] = [k, inputs, 1, 1]
                norm(f"{name}.downsample.1", k)
            inputs = k
    shapes["fc.weight"] = [classes, 512]
    shapes["fc.bias"] = [classes]
    return shapes


# --- safetensors ------------------------------------------------------------------------------------------------------


def safetensors(path):
    """({metadata}, {name: (dtype, shape, bytes)}); refuses holes, overlaps, trailing bytes, unknown members."""
    with open(path, "rb") as file:
        data = file.read()
    need(len(data) >= 8, "shorter than its length field")
    (length,) = struct.unpack_from("<Q", data)
    need(8 + length <= len(data), "header longer than the file")
    need(length % 8 == 0, "header not padded to 8 bytes")
    need(data[8:9] == b"{", "header does not begin with {")

    def pairs(items):
        names = [k for k, _ in items]
        need(len(set(names)) == len(names), "duplicate name in the header")
        return dict(items)

    header = json.loads(data[8:8 + length].decode("utf-8"), object_pairs_hook=pairs)
    metadata = header.pop("__metadata__", {})
    need(all(isinstance(v, str) for v in metadata.values()), "metadata that is not text")
    body = memoryview(data)[8 + length:]
    end = 0
    tensors = {}
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        need(set(entry) == {"dtype", "shape", "data_offsets"}, f"{name}: other members")
        first, last = entry["data_offsets"]
        count = 1
        for n in entry["shape"]:
            count *= n
        need(first == end, f"{name}: hole or overlap")
        need(last - first == count * DTYPES[entry["dtype"]], f"{name}: size does not fit its shape")
        end = last
    need(end == len(body), "bytes after the last tensor")
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], bytes(body[first:last]))
    return metadata, tensors


# --- model.pth --------------------------------------------------------------------------------------------------------


class Storage:
    def __init__(self, dtype, key, numel):
        self.dtype, self.key, self.numel = dtype, key, numel


class StateDict(dict):
    pass


class Unpickler(pickle.Unpickler):
    """Knows the four names that a state dict needs; everything else is refused."""

    NAMES = {
        ("collections", "OrderedDict"): StateDict,
        ("torch", "FloatStorage"): "F32",
        ("torch", "LongStorage"): "I64",
    }

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, grad, hooks: (storage, offset, size, stride, grad, hooks)
        need((module, name) in self.NAMES, f"pickle names {module}.{name}")
        return self.NAMES[module, name]

    def persistent_load(self, pid):
        need(pid[0] == "storage" and pid[3] == "cpu", f"persistent id {pid!r}")
        return Storage(pid[1], pid[2], pid[4])


def pth(path):
    """{name: (dtype, shape, bytes)} of a torch zip file, in its order; every rule of torch's weights_only reader applies."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        need(len(set(names)) == len(names), "duplicate entries")
        need(archive.testzip() is None, "a CRC is wrong")
        prefixes = {n.split("/", 1)[0] for n in names}
        need(len(prefixes) == 1 and all("/" in n for n in names), f"no single directory prefix: {prefixes}")
        prefix = prefixes.pop()
        need(all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist()), "compressed entries")
        need(archive.read(f"{prefix}/version").strip() == b"3", "version")
        need(archive.read(f"{prefix}/byteorder") == b"little", "byteorder")
        program = archive.read(f"{prefix}/data.pkl")
        opcodes = list(pickletools.genops(program))
        need(opcodes[0][0].name == "PROTO" and opcodes[0][1] == 2, "not pickle protocol 2")
        need(opcodes[-1][2] + 1 == len(program), "bytes after STOP")
        need(not any(op.name in ("FLOAT", "BINFLOAT", "INST", "OBJ", "NEWOBJ", "EXT1") for op, _, _ in opcodes), "forbidden opcode")
        with archive.open(f"{prefix}/data.pkl") as file:
            state = Unpickler(file).load()
        need(type(state) is StateDict, "not an OrderedDict")
        tensors = {}
        used = set()
        for name, (storage, offset, size, stride, grad, hooks) in state.items():
            raw = archive.read(f"{prefix}/data/{storage.key}")
            count, wanted = 1, []
            for n in reversed(size):
                wanted.insert(0, count)
                count *= n
            need(list(stride) == wanted, f"{name}: strides {stride} are not contiguous")
            need(offset == 0 and storage.numel == count, f"{name}: storage of {storage.numel} for {count} elements")
            need(len(raw) == count * DTYPES[storage.dtype], f"{name}: {len(raw)} bytes")
            need(grad is False and not hooks, f"{name}: requires_grad or hooks")
            need(storage.key not in used, f"{name}: shares a storage")
            used.add(storage.key)
            tensors[name] = (storage.dtype, list(size), raw)
        return tensors


def same_tensors(a, b):
    """None, or a sentence that names the first difference."""
    if set(a) != set(b):
        return f"names differ: {sorted(set(a) ^ set(b))[:3]}"
    for name in a:
        if a[name] != b[name]:
            return f"{name} differs"
    return None


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC32C = _crc32c_table()


def masked_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC32C[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def protobuf(data):
    """[(field, wire type, value)] of one message; bytes, floats as raw bytes, varints as int."""
    fields, at = [], 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        field, wire = key >> 3, key & 7
        if wire == 0:
            fields.append((field, wire, varint()))
            continue
        size = {1: 8, 5: 4}[wire] if wire != 2 else varint()
        need(at + size <= len(data), "field longer than its message")
        fields.append((field, wire, bytes(data[at:at + size])))
        at += size
    return fields


def events(path):
    """The event messages of a TensorBoard file: [(wall time, step, file version or None, {tag: kind or float})]."""
    with open(path, "rb") as file:
        data = file.read()
    out, at = [], 0
    while at < len(data):
        need(at + 12 <= len(data), "truncated record")
        (length,) = struct.unpack_from("<Q", data, at)
        need(struct.unpack_from("<I", data, at + 8)[0] == masked_crc32c(data[at:at + 8]), "length CRC")
        body = data[at + 12:at + 12 + length]
        need(len(body) == length and at + 16 + length <= len(data), "truncated record")
        need(struct.unpack_from("<I", data, at + 12 + length)[0] == masked_crc32c(body), "data CRC")
        at += 16 + length
        wall, step, version, values = 0.0, 0, None, {}
        for field, wire, value in protobuf(body):
            if field == 1:
                (wall,) = struct.unpack("<d", value)
            elif field == 2:
                step = value
            elif field == 3:
                version = value.decode()
            elif field == 5:
                for _, _, item in protobuf(value):
                    tag, kind = None, None
                    for number, _, content in protobuf(item):
                        if number == 1:
                            tag = content.decode()
                        elif number == 2:
                            (kind,) = struct.unpack("<f", content)
                        elif number == 4:
                            kind = "image"
                        elif number == 5:
                            kind = "histogram"
                    need(tag is not None, "summary value without tag")
                    values[tag] = kind
        out.append((wall, step, version, values))
    need(out and out[0][2] == "brain.Event:2", "first record is not brain.Event:2")
    return out


# --- log lines --------------------------------------------------------------------------------------------------------

PAIR = re.compile(r"(?:^|\s)([A-Za-z_][A-Za-z0-9_:/]*)=([^\s;,]+)")


def pairs(line):
    """{name: text} of the name=value pairs of one line."""
    return dict(PAIR.findall(line))


def crc32(data):
    return zlib.crc32(data) & 0xFFFFFFFF
