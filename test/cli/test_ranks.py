"""Contract tests 51, 62, 63, 85, 88, 91–97: several processes and several hosts train one network. Hosts are jobs of their own on loopback
addresses (a numeric address is a host's name here); each has its own base directory, as on the platform."""

import os
import re
import signal
import socket
import time

import smelt_data
import smelt_job
import smelt_read
from smelt_hosts import RUN, Hosts, expect_close, losses, ranks_of
from smelt_job import Job, expect, expect_equal, expect_match, test

BAD_SETTING, BAD_DATA, PEER = 2, 3, 4
PEER_SECONDS = 8   # peer_timeout_seconds of the tests of faults
HANG_SECONDS = 60  # only a hang gets there

# Long enough to be disturbed: ended by the test.
LONG = {**RUN, "sync_bn": "false", "epochs": "500", "log_every_steps": "1", "peer_timeout_seconds": str(PEER_SECONDS), "checkpoint_every_epochs": "0"}


def weights(job):
    return smelt_read.safetensors(job.path("model/model.safetensors"))[1]


def expect_end(process, what):
    """It ends by itself in the time that it promises, and leaves no process behind."""
    ranks = ranks_of(process)
    started = time.monotonic()
    result = process.finish(HANG_SECONDS)
    print(f"{what}: ended {time.monotonic() - started:.1f} s after the fault")
    for pid in ranks:
        expect(not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split(")")[1].split()[0] == "Z", f"{what}: rank {pid} was left behind")
    return result


# --- the same training on any number of ranks -------------------------------------------------------------------------


def trained(settings, hosts=1):
    with Hosts(hosts, settings) if hosts > 1 else Hosts(1, settings, names=["algo-1"]) as cluster:
        results = cluster.run()
        for result in results:
            result.expect_success()
        return losses(results[0]), cluster.jobs[0].model(), results


@test(91, "two hosts: the first saves, reports and writes checkpoints; the second leaves nothing in model/")
def two_hosts():
    with Hosts(2, {**RUN, "epochs": "2"}) as cluster:
        first, second = (result.expect_success() for result in cluster.run())
        expect_equal(cluster.jobs[0].files("model"), ["model.json", "model.safetensors"], "model of the first host")
        expect_equal(cluster.jobs[1].files("model"), [], "model of the second host")
        expect_equal(cluster.jobs[1].checkpoints(), [], "checkpoints of the second host")
        expect_equal(cluster.jobs[1].files("output/data"), [], "output/data of the second host")
        expect(len(re.findall(r"\[metric\]", first.out)) == 2 and "[metric]" not in second.out, f"metric lines: {first.tail()} {second.tail()}")
        expect_match(r"127\.0\.0\.2 rank 1\]", second.out, "host and rank in the lines of the second host")


@test(62, "hosts that share one directory for the model (local mode): only the first writes there")
def shared_directory():
    with Hosts(2, {**RUN, "epochs": "1"}) as cluster:
        first, second = cluster.jobs
        os.rmdir(second.path("model"))
        os.symlink(first.path("model"), second.path("model"))
        for result in cluster.run():
            result.expect_success()
        expect_equal(first.files("model"), ["model.json", "model.safetensors"], "the shared directory")


@test(63, "two hosts' output/data, merged into one archive: no file of one host's in the place of the other's")
def merged_output():
    with Hosts(2, {**RUN, "epochs": "1"}) as cluster:
        for result in cluster.run():
            result.expect_success()
        first, second = (set(job.files("output/data")) for job in cluster.jobs)
        expect("history.csv" in first and not first & second, f"{first} and {second}")


@test(92, "one rank; four ranks; two hosts of two ranks: one loss curve, when statistics are synchronised")
def same_curve():
    # In double precision; in floats a few activations so near to zero that rounding gives them the other sign part the curves after two steps.
    settings = {**RUN, "backend": "ref", "batch_size": "8", "epochs": "1", "max_steps": "10"}
    alone, _, _ = trained(settings)
    four, _, _ = trained({**settings, "devices": "4"})
    two_by_two, _, _ = trained({**settings, "devices": "2"}, hosts=2)
    expect_equal(len(alone), 10, "steps")
    expect_close(four, alone, 1e-4, "four ranks")
    expect_close(two_by_two, alone, 1e-4, "two hosts of two")
    floats = trained({**RUN, "epochs": "1"})[0], trained({**RUN, "epochs": "1", "devices": "2"})[0]
    expect_close(floats[1][:2], floats[0][:2], 1e-4, "the first steps in floats")


@test("92b", "the same ranks give the same bits again, with bf16 sums too; batches cut unevenly")
def same_bits():
    for extra in ({"devices": "3"}, {"devices": "2", "reduce_type": "bf16", "sync_bn": "false", "drop_last": "false", "batch_size": "31"}):
        once, again = trained({**RUN, **extra, "epochs": "2"}), trained({**RUN, **extra, "epochs": "2"})
        expect(once[1] == again[1], f"{extra}: other weights the second time")


@test("92c", "a world of another size goes on from a checkpoint: 2 ranks, then 1, then 3")
def another_world():
    settings = {**RUN, "epochs": "3", "checkpoint_every_steps": "3"}
    whole, _, _ = trained(settings)
    with Job({**settings, "max_steps": "3", "devices": "2"}) as job:
        curve = losses(job.run().expect_success())
        for devices, steps in (("1", "6"), ("3", "9")):
            job.restart()
            job.set(max_steps=steps, devices=devices)
            result = job.run().expect_success()
            expect_match(r"(?i)resumed from epoch", result.out, "the next run")
            curve += losses(result)
    expect_equal(len(curve), 9, "steps in all")
    expect_close(curve[:2], whole[:2], 1e-4, "the first steps")


# --- data ---------------------------------------------------------------------------------------------------------------


@test(51, "ShardedByS3Key: hosts with different halves, and one with no file, train on each image once")
def shards():
    halves = [{"train.bin": smelt_data.binary(100, 1)}, {"train-b.bin": smelt_data.binary(60, 5)}, {}]
    with Hosts(3, {**RUN, "epochs": "1", "batch_size": "40", "drop_last": "false"}, files={}) as cluster:
        for job, files in zip(cluster.jobs, halves):
            job.channel("train", files, S3DistributionType="ShardedByS3Key")
            job.channel("validation", {"test.bin": smelt_data.binary(32, 2)})
        results = [result.expect_success() for result in cluster.run()]
        expect_match(r"train_images_of_all_hosts=160\b", results[2].out, "the host without files")
        expect_equal(len(losses(results[0])), 4, "steps of an epoch of 160 images, 40 a step")


@test("51b", "replicated hosts that hold different images: refused, with the hosts' names")
def other_images():
    with Hosts(2, {**RUN, "peer_timeout_seconds": str(PEER_SECONDS)}) as cluster:
        cluster.jobs[1].channel("train", {"train.bin": smelt_data.binary(100, 9), "test.bin": smelt_data.binary(32, 2)})
        for result in cluster.run():
            expect(result.code in (BAD_DATA, PEER) and result.failure, result.tail())
            expect_match(r"127\.0\.0\.1 and 127\.0\.0\.2 hold different", result.failure.decode(), "failure text")


@test(97, "hosts with different settings: refused at the rendezvous, naming the setting and both values")
def other_settings():
    with Hosts(2, RUN) as cluster:
        cluster.jobs[1].set(lr="0.5")
        for result in cluster.run():
            expect(result.code != 0 and result.failure, result.tail())
            expect_match(r"\blr\b.*(0\.5.*0\.001|0\.001.*0\.5)", result.failure.decode(), "failure text")


# --- finding each other -------------------------------------------------------------------------------------------------


@test(93, "a host that never comes, a name that never resolves: failure after the deadline, naming it")
def nobody_there():
    with Hosts(2, {**RUN, "rendezvous_timeout_seconds": "3"}) as cluster:
        cluster.jobs[0].run().expect_failure(PEER, r"127\.0\.0\.2")
    with Hosts(2, {**RUN, "rendezvous_timeout_seconds": "3"}, names=["a-host-that-is-not.invalid", "b-host"]) as cluster:
        cluster.jobs[1].run().expect_failure(PEER, r"a-host-that-is-not\.invalid")


@test("93b", "a host that comes late is waited for")
def late_host():
    with Hosts(2, {**RUN, "epochs": "1"}) as cluster:
        second = cluster.jobs[1].start()
        second.wait_line(r"(?i)127\.0\.0\.1")
        time.sleep(1)
        first = cluster.jobs[0].start()
        first.finish().expect_success()
        second.finish().expect_success()


@test(96, "the port is taken: said clearly, with the setting's name")
def port_taken():
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        with Hosts(2, {**RUN, "rendezvous_timeout_seconds": "5"}, port=taken.getsockname()[1]) as cluster:
            cluster.jobs[0].run().expect_failure(BAD_SETTING, r"rendezvous_port")


# --- stopping -----------------------------------------------------------------------------------------------------------


@test(88, "SIGTERM to one of two hosts: both stop at the same step, with a checkpoint, and go on from there")
def stop_one():
    with Hosts(2, {**LONG, "devices": "2"}) as cluster:
        processes = cluster.start()
        processes[0].wait_line(r"\[step\].*step=4 ")
        processes[1].signal(signal.SIGTERM)
        results = [process.finish().expect_success() for process in processes]
        saved = cluster.jobs[0].checkpoints()
        expect_equal(len(saved), 1, "checkpoints of the first host")
        step = int(smelt_job.CHECKPOINT.fullmatch(saved[0])[2])
        expect(cluster.jobs[0].exists("model/model.safetensors"), "no model after a stop")
        for job in cluster.jobs:
            job.restart()
        cluster.set(max_steps=str(step + 2))
        results = [result.expect_success() for result in cluster.run()]
        expect_match(rf"resumed from epoch \d+ step {step}\b", results[0].out, "the next run")
        expect_equal(len(losses(results[0])), 2, "steps of the next run")


@test(85, "hosts that hold different checkpoints go on from the first host's")
def different_checkpoints():
    with Hosts(2, {**RUN, "epochs": "3", "max_steps": "4", "checkpoint_every_steps": "2"}) as cluster:
        for result in cluster.run():
            result.expect_success()
        for job in cluster.jobs:
            job.restart()
        os.makedirs(cluster.jobs[1].path("checkpoints"), exist_ok=True)
        saved = cluster.jobs[0].checkpoints()
        cluster.jobs[1].write(f"checkpoints/{saved[-1]}", cluster.jobs[0].read(f"checkpoints/{saved[-1]}"))
        os.remove(cluster.jobs[0].path("checkpoints", saved[-1]))  # the first host has only the older one
        cluster.set(max_steps="6")
        first = [result.expect_success() for result in cluster.run()][0]
        step = int(smelt_job.CHECKPOINT.fullmatch(saved[-2])[2])
        expect_match(rf"resumed from epoch \d+ step {step}\b", first.out, "the next run")


@test("88b", "max_seconds is over at one step on all ranks")
def time_budget():
    with Job({**LONG, "devices": "2", "max_seconds": "3"}) as job:
        job.run().expect_success()
        expect(job.exists("model/model.safetensors"), "no model")


# --- faults -------------------------------------------------------------------------------------------------------------


def fault(act, pattern, devices=2, codes=(1, PEER)):
    """Two hosts train; act(processes) spoils something on the second; both must end, and tell what happened there."""
    with Hosts(2, {**LONG, "devices": str(devices)}) as cluster:
        processes = cluster.start()
        processes[0].wait_line(r"\[step\].*step=3 ")
        act(processes)
        for i, process in enumerate(processes):
            result = expect_end(process, f"host {i + 1}")
            if result.code == -signal.SIGKILL:
                continue
            expect(result.code in codes and result.failure, result.tail())
            smelt_job.check_failure_text(result.failure)
            expect_match(pattern, result.failure.decode(), f"failure text of host {i + 1}")


@test(94, "a rank is killed: all end, and both failure files name host, rank and signal")
def killed_rank():
    fault(lambda processes: os.kill(ranks_of(processes[1])[1], signal.SIGKILL), r"127\.0\.0\.2 \(rank 3\).*(SIGKILL|signal 9)")


@test("94b", "the whole of a host is killed: the other ends and names it")
def killed_host():
    fault(lambda processes: processes[1].signal(signal.SIGKILL), r"127\.0\.0\.2")


@test("94c", "a rank of a lone host is killed: its parent tells")
def killed_lone_rank():
    for devices in ("1", "2"):
        with Job({**LONG, "devices": devices}) as job:
            process = job.start()
            process.wait_line(r"\[step\].*step=3 ")
            os.kill(ranks_of(process)[-1], signal.SIGKILL)
            expect_end(process, f"{devices} ranks").expect_failure(1, r"signal 9")


@test(95, "a rank is stopped (SIGSTOP): all end, and the failure files name it")
def stopped_rank():
    fault(lambda processes: os.kill(ranks_of(processes[1])[0], signal.SIGSTOP), r"127\.0\.0\.2 \(rank 2\).*silent")


@test("95b", "a host is stopped: the other ends and names it")
def stopped_host():
    def stop(processes):
        for pid in (processes[1].pid, *ranks_of(processes[1])):
            os.kill(pid, signal.SIGSTOP)

    with Hosts(2, {**LONG, "devices": "2"}) as cluster:
        processes = cluster.start()
        processes[0].wait_line(r"\[step\].*step=3 ")
        stop(processes)
        result = expect_end(processes[0], "host 1")
        expect(result.code == PEER and result.failure, result.tail())
        expect_match(r"127\.0\.0\.2", result.failure.decode(), "failure text")


if __name__ == "__main__":
    smelt_job.main()
