"""Contract tests 88 and 92–95 between hosts with networks and names of their own (smelt_net.py): names that come late, bad lines, strangers,
and faults of each kind at random instants (SMELT_FAULTS of each, seeded), from the first moment of the processes on.

A fault ends everybody within peer_timeout_seconds, or, while not all hosts have met, within rendezvous_timeout_seconds. This promise is a time,
so it is tested as one. MARGIN_SECONDS: a host that comes late begins its rendezvous up to a second after the fault and may wait two more for
the first host's word; and on a busy machine time in which a parent itself did not get to run counts for nobody's silence."""

import os
import random
import re
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_data
import smelt_job
from smelt_hosts import RUN, Hosts, expect_close, losses, ranks_of
from smelt_job import Job, expect, expect_equal, expect_match, test
from smelt_net import PORT, NetHosts

FAULTS = int(os.environ.get("SMELT_FAULTS", 20))  # of each kind
LATE_SECONDS = float(os.environ.get("SMELT_LATE_SECONDS", 5))  # until a name can be looked up
PEER_SECONDS, MARGIN_SECONDS, HANG_SECONDS = 8, 6, 120
DATA, PEER = 3, 4
SHORT = {**RUN, "epochs": "1", "rendezvous_timeout_seconds": "30"}
LONG = {**RUN, "sync_bn": "false", "epochs": "500", "checkpoint_every_steps": "4", "keep_checkpoints": "2", "peer_timeout_seconds": str(PEER_SECONDS),
        "rendezvous_timeout_seconds": str(PEER_SECONDS)}


# --- names, lines, shapes ---------------------------------------------------------------------------------------------


@test(93, f"the first host's name can be looked up only after {LATE_SECONDS:g} s: training starts")
def late_name():
    with NetHosts(2, SHORT, unknown=["algo-1"]) as cluster:
        processes = cluster.start()
        time.sleep(LATE_SECONDS)
        expect_match(r"attempt 2 to reach host algo-1: its name cannot be resolved", "\n".join(line for _, _, line in processes[1].events), "the waiting host")
        cluster.know()
        for process in processes:
            process.finish().expect_success()


@test("93n", "a name that can never be looked up, a host that never comes: failure after the deadline, naming it")
def no_name():
    with NetHosts(2, {**SHORT, "rendezvous_timeout_seconds": "4"}, unknown=["algo-1"]) as cluster:
        first, second = cluster.run()
        first.expect_failure(PEER, r"algo-2")
        second.expect_failure(PEER, r"host algo-1 .*cannot be resolved")


@test("92n", "four hosts of one rank, hosts of one and of three: the loss curve of one rank")
def same_curve():
    settings = {**SHORT, "backend": "ref", "batch_size": "8", "max_steps": "10"}
    with Job(settings) as job:
        alone = losses(job.run().expect_success())
    for devices in ((1, 1, 1, 1), (1, 3), (3, 1)):
        with NetHosts(len(devices), settings) as cluster:
            for job, count in zip(cluster.jobs, devices):
                job.set(devices=str(count))
            results = [result.expect_success() for result in cluster.run()]
            expect_match(rf"ranks world=4 .*hosts={len(devices)} address=10\.77\.0\.1\b", results[0].out, "the first host")
            expect_close(losses(results[0]), alone, 1e-4, f"devices {devices}")


@test("91n", "10 ms of delay and 2 % of the packets lost: the same weights as over a good line")
def bad_line():
    with NetHosts(2, SHORT) as cluster:
        for result in cluster.run():
            result.expect_success()
        model = cluster.jobs[0].model()
    with NetHosts(2, SHORT, line=(10, 0.02)) as cluster:
        for result in cluster.run():
            result.expect_success()
        carried, lost = cluster.line_figures()
        expect(lost > 0, f"none of {carried} packets was lost")
        print(f"91n: {carried} packets carried, {lost} lost")
        expect(cluster.jobs[0].model() == model, "other weights over the bad line")


STRANGER = """import os, socket, sys, time
data = {"http": b"GET / HTTP/1.1\\r\\nHost: algo-1\\r\\n\\r\\n", "rubbish": os.urandom(5000), "nothing": b""}
held = []
for word in sys.argv[3:]:
    one = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    one.sendall(data[word])
    held.append(one)
print("there", flush=True)
time.sleep(600)
"""


@test("93s", "strangers at the rendezvous, with HTTP, rubbish or nothing to say: turned away, the hosts meet")
def strangers():
    with NetHosts(2, SHORT) as cluster:
        first = cluster.start_host(0)
        first.wait_line(r"rendezvous: waiting for")
        stranger = cluster.jobs[1].start("-c", STRANGER, cluster.address(0), str(PORT), "http", "rubbish", "nothing", "rubbish",
                                         program=sys.executable, wrapper=cluster.networks[1].enter)
        stranger.wait_line("there")
        time.sleep(1)
        second = cluster.start_host(1)
        for process in (first, second):
            process.finish().expect_success()
        expect(stranger.running(), "the stranger left")


# --- faults -------------------------------------------------------------------------------------------------------------


class Fault:
    """One training in which something goes wrong on one host, chosen with everything else by `rng`."""

    def __init__(self, rng, hosts=(2, 2, 4), late=0.25, latest=6.0, **settings):
        count = rng.choice(hosts)
        self.rng, self.host = rng, rng.randrange(count)
        # Many things happen in the first second, which is the time of the rendezvous, the data and the start of the ranks.
        self.instant = rng.uniform(0.05, 1.0) if rng.random() < 0.4 else rng.uniform(1.0, latest)
        # One of the others may come late: then the fault is in the middle of the rendezvous.
        others = [host for host in range(count) if host != self.host]
        self.late = rng.choice(others) if rng.random() < late else None
        self.cluster = NetHosts(count, {**LONG, "devices": "2" if count == 2 else "1", **settings})
        self.name = self.cluster.names[self.host]
        self.may_leave_parts = False  # a process that is killed may leave a checkpoint under its temporary name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.cluster.__exit__()

    def describe(self):
        late = f", {self.cluster.names[self.late]} comes late" if self.late is not None else ""
        return f"{len(self.cluster.jobs)} hosts, {self.name} after {self.instant:.3f} s{late}"

    def start(self):
        """Until the instant of the fault."""
        self.processes = {host: self.cluster.start_host(host) for host in range(len(self.cluster.jobs)) if host != self.late}
        time.sleep(self.instant)

    def start_late(self):
        if self.late is not None:
            time.sleep(self.rng.uniform(0, 1))
            self.processes[self.late] = self.cluster.start_host(self.late)

    @property
    def process(self):
        return self.processes[self.host]

    def wait_for_ranks(self):
        """They are all there: looking a name up takes a process, too, but never two."""
        count = int(self.cluster.jobs[self.host].settings["devices"])
        self.process.wait_for(lambda: len(ranks_of(self.process)) >= count, "its ranks were there", HANG_SECONDS)
        return ranks_of(self.process)

    def first_rank(self):
        return self.host * int(self.cluster.jobs[0].settings["devices"])

    def expect_ends(self, wanted, began=None):
        """wanted: {host: (exit codes, pattern of the failure text or None)}. All end in the time promised, and nothing is left."""
        began = began or time.monotonic()
        for host, (codes, pattern) in wanted.items():
            name, result = self.cluster.names[host], self.processes[host].finish(HANG_SECONDS)
            expect(result.code in codes, f"{name}: exit codes {codes} wanted: {result.tail()}")
            if pattern:
                expect(result.failure is not None, f"{name}: no failure file: {result.tail()}")
                expect_match(pattern, smelt_job.check_failure_text(result.failure), f"failure file of {name}")
            else:
                expect(result.failure is None, f"{name}: a failure file: {result.tail()}")
        seconds = time.monotonic() - began
        expect(seconds < PEER_SECONDS + MARGIN_SECONDS, f"the last host ended {seconds:.1f} s after the fault")
        for host in wanted:
            self.cluster.expect_empty(host)
        return seconds

    def others(self):
        return [host for host in self.processes if host != self.host]

    def expect_resumable(self):
        """The checkpoints are whole, and a run on one host goes on from the newest."""
        first = self.cluster.jobs[0]
        saved, names = first.checkpoints(), first.files("checkpoints")
        strange = [name for name in names if name not in saved and not (self.may_leave_parts and name.endswith(".sagemaker-ignore"))]
        expect(not strange, f"{strange} in the directory of checkpoints")
        step = int(smelt_job.CHECKPOINT.fullmatch(saved[-1])[2]) if saved else 0
        for job in self.cluster.jobs:
            expect(not job.files("model"), f"a model after a failure: {job.files('model')}")
        first.restart()
        first.config("resourceconfig", {"current_host": self.cluster.names[0], "hosts": self.cluster.names[:1], "network_interface_name": "eth0"})
        first.set(devices="1", max_steps=str(step + 1), checkpoint_every_steps="0")
        result = self.cluster.start_host(0).finish().expect_success()
        expect_match(rf"resumed from epoch \d+ step {step}\b" if saved else "training starts from the beginning", result.out, "the next run")


def blames(name):
    """Pattern of a failure text that says that it was this host."""
    return rf"^host {name}\b|missing: .*\b{name}\b"


def repeat(number, play, seed, **options):
    """Plays `play(fault)`, which returns the seconds that it took, FAULTS times; all that went wrong is told at the end."""
    seconds, wrong, left_out = [], [], None
    for run in range(FAULTS):
        with Fault(random.Random(f"{seed} {run}"), **options) as fault:
            try:
                seconds.append(play(fault))
                fault.expect_resumable()
            except AssertionError as problem:
                wrong.append(f"run {run}: {fault.describe()}: {problem}")
    figures = f"ended {min(seconds):.1f} to {max(seconds):.1f} s after it" if seconds else "none as it should be"
    print(f"{number}: {FAULTS} faults, {len(wrong)} wrong; {figures}", flush=True)
    expect(not wrong, f"{len(wrong)} of {FAULTS}:\n" + "\n\n".join(wrong))


def signal_rank(number, code, told):
    """Some rank of the host gets the signal: its parent ends with the exit code, the others with PEER; all name host and rank, and what is told of it."""
    def play(fault):
        fault.start()
        ranks = fault.wait_for_ranks()
        local = fault.rng.randrange(len(ranks))
        fault.may_leave_parts = fault.host == 0
        os.kill(ranks[local], number)
        pattern = rf"host {fault.name} \(rank {fault.first_rank() + local}\).*{told}"
        return fault.expect_ends({host: ((code if host == fault.host else PEER,), pattern) for host in fault.processes})

    return play


@test("94n", f"a rank is killed at a random instant ({FAULTS} times): all end and name host, rank and signal")
def killed_rank():
    repeat("94n", signal_rank(signal.SIGKILL, 1, "signal 9"), 1, late=0)


@test("94m", f"a whole host is killed at a random instant ({FAULTS} times): the others end and name it")
def killed_host():
    def play(fault):
        fault.start()
        fault.may_leave_parts = fault.host == 0
        os.killpg(fault.process.pid, signal.SIGKILL)
        fault.start_late()
        return fault.expect_ends({fault.host: ((-signal.SIGKILL,), None), **{host: ((PEER,), blames(fault.name)) for host in fault.others()}})

    repeat("94m", play, 2)


@test("95n", f"a rank is stopped (SIGSTOP) at a random instant ({FAULTS} times): all end and name host and rank")
def stopped_rank():
    repeat("95n", signal_rank(signal.SIGSTOP, PEER, "silent"), 3, late=0)


@test("95m", f"a whole host is stopped (SIGSTOP) at a random instant ({FAULTS} times): the others end and name it; it ends when it goes on")
def stopped_host():
    def play(fault):
        fault.start()
        fault.may_leave_parts = fault.host == 0
        os.killpg(fault.process.pid, signal.SIGSTOP)
        fault.start_late()
        seconds = fault.expect_ends({host: ((PEER,), blames(fault.name)) for host in fault.others()})
        os.killpg(fault.process.pid, signal.SIGCONT)
        fault.expect_ends({fault.host: ((PEER,), blames("algo-\\d"))})
        return seconds

    repeat("95m", play, 4)


def cut(fault):
    fault.start()
    fault.cluster.cut(fault.host)
    fault.start_late()
    others = "|".join(name for name in fault.cluster.names if name != fault.name)
    return fault.expect_ends({fault.host: ((PEER,), blames(f"({others})")), **{host: ((PEER,), blames(fault.name)) for host in fault.others()}})


@test("95c", f"a host is cut off the network at a random instant ({FAULTS} times): all end, the others name it")
def cut_host():
    repeat("95c", cut, 5, late=0)


@test("95d", f"a host is cut off while hosts meet or data is read ({FAULTS} times)")
def cut_early():
    def play(fault):
        if fault.late is None:  # reading takes until after the cut, on one host or on all
            slow = fault.cluster.jobs if fault.rng.random() < 0.5 else [fault.rng.choice(fault.cluster.jobs)]
            for job in slow:
                job.pipe("train", Job.tiny()["train.bin"], delay=fault.instant + 1)
                job.pipe("validation", Job.tiny()["test.bin"])
        seconds = cut(fault)
        first = fault.cluster.jobs[0]  # what was in its pipes is gone: the next run has files
        first.inputs.pop("validation", None)
        first.channel("train", Job.tiny())
        return seconds

    repeat("95d", play, 6, late=0.5, latest=2.0)


@test("95x", f"a host's own shard is damaged ({FAULTS} times): it ends with the code for data, the others name it")
def damaged_shard():
    def play(fault):
        for host, job in enumerate(fault.cluster.jobs):
            data = bytearray(smelt_data.binary(100, 1 + host))
            if host == fault.host and fault.rng.random() < 0.5:
                del data[fault.rng.randrange(len(data) // 3074) * 3074 + fault.rng.randrange(1, 3074):]
            elif host == fault.host:
                data[fault.rng.randrange(100) * 3074 + 1] = fault.rng.randrange(100, 256)  # the fine label
            job.channel("train", {"train.bin": bytes(data)}, S3DistributionType="ShardedByS3Key")
            os.remove(job.path("input/data/train/test.bin"))
            job.channel("validation", {"test.bin": smelt_data.binary(32, 2)})
        fault.start()
        seconds = fault.expect_ends({host: ((DATA,) if host == fault.host else (PEER,), rf"^host {fault.name}\b.*train\.bin") for host in fault.processes})
        fault.cluster.jobs[0].channel("train", {"train.bin": smelt_data.binary(100, 1)})
        return seconds

    repeat("95x", play, 7, late=0, latest=1.0)


# --- stopping -----------------------------------------------------------------------------------------------------------


@test("88n", f"SIGTERM to one host at a random instant ({FAULTS} times): all end well, after the same step, and go on from there")
def stop_one():
    def play(fault):
        fault.start()
        for process in fault.processes.values():
            process.wait_line("smelt train version")
        fault.process.signal(signal.SIGTERM)
        seconds = fault.expect_ends({host: ((0,), None) for host in fault.processes})
        told = re.search(r"stopped at step (\d+)", "\n".join(line for _, _, line in fault.processes[0].events))
        saved = fault.cluster.jobs[0].checkpoints()
        if told:  # 0: before the first one
            expect_equal(saved and int(smelt_job.CHECKPOINT.fullmatch(saved[-1])[2]), int(told[1]), "step of the checkpoint")
            expect(fault.cluster.jobs[0].exists("model/model.safetensors"), "no model after a stop")
            fault.cluster.jobs[0].restart()
        else:
            expect(not saved, f"checkpoints {saved} of a training that never began")
        return seconds

    repeat("88n", play, 8, late=0)


if __name__ == "__main__":
    smelt_job.main()
