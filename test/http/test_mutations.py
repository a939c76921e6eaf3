"""Contract test 134: mutated requests (serve_mutations.py). Here a few thousand; test/long sends 100 000."""

import serve_mutations
from smelt_serve import Server, expect, main, scaled, test


@test(134, "mutated requests: every answer is whole HTTP, the server lives and answers right afterwards")
def mutations():
    with Server(env={"SMELT_PAGE": "on", "SMELT_ACCESS_LOG": "false"}) as server:
        seen = serve_mutations.run(server, scaled(12000, 5000, 2000), seed=1)
        expect(seen.get(200, 0) > 0 and seen.get(400, 0) > 0, f"statuses {seen}")
        expect(not seen.get(500), f"statuses {seen}: a mutated request is never our fault")


if __name__ == "__main__":
    main()
