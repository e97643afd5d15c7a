#!/usr/bin/python3
"""Drives creeld with Python's own gRPC library, knowing nothing of creel but its .proto files.

    stubs DIR            generates the stubs of proto/creel/v1 into DIR (protoc, grpc_python_plugin)
    SCENARIO             runs one of the functions below whose names begin with `scenario_`, against --socket

Each scenario says what it saw, and ends with 0 when all of it was as the .proto files promise.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import queue
import socket
import subprocess
import sys
import tarfile
import threading
import time


def stubs(proto, directory):
    os.makedirs(directory, exist_ok=True)
    files = sorted(str(file.relative_to(proto)) for file in pathlib.Path(proto).glob("creel/v1/*.proto"))
    plugin = subprocess.check_output(["which", "grpc_python_plugin"], text=True).strip()
    subprocess.check_call(
        ["protoc", f"--proto_path={proto}", f"--python_out={directory}", f"--grpc_python_out={directory}",
         f"--plugin=protoc-gen-grpc_python={plugin}", *files])
    for name, text in (("health", HEALTH), ("reflection", REFLECTION), ("status", STATUS)):
        (pathlib.Path(directory) / f"{name}.proto").write_text(text)
        subprocess.check_call(
            ["protoc", f"--proto_path={directory}", f"--python_out={directory}", f"--grpc_python_out={directory}",
             f"--plugin=protoc-gen-grpc_python={plugin}", f"{name}.proto"])


# As https://github.com/grpc/grpc/blob/master/doc/health-checking.md has it.
HEALTH = """syntax = "proto3";
package grpc.health.v1;
message HealthCheckRequest { string service = 1; }
message HealthCheckResponse {
  enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
  ServingStatus status = 1;
}
service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
"""

# As https://github.com/grpc/grpc/blob/master/src/proto/grpc/reflection/v1/reflection.proto has it; what is left out is
# passed over.
REFLECTION = """syntax = "proto3";
package grpc.reflection.v1;
message ServerReflectionRequest {
  oneof message_request { string file_containing_symbol = 4; string list_services = 7; }
}
message ServerReflectionResponse {
  oneof message_response {
    FileDescriptorResponse file_descriptor_response = 4;
    ListServiceResponse list_services_response = 6;
  }
}
message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
message ListServiceResponse { repeated ServiceResponse service = 1; }
message ServiceResponse { string name = 1; }
service ServerReflection {
  rpc ServerReflectionInfo(stream ServerReflectionRequest) returns (stream ServerReflectionResponse);
}
"""

# google.rpc.Status on the wire, what `grpc-status-details-bin` holds.
STATUS = """syntax = "proto3";
package google.rpc;
message Any { string type_url = 1; bytes value = 2; }
message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
"""


class World:
    """What a scenario works with: the stubs and a connection."""

    def __init__(self, arguments):
        sys.path.insert(0, arguments.stubs)
        import grpc
        import health_pb2
        import health_pb2_grpc
        import reflection_pb2
        import reflection_pb2_grpc
        import status_pb2
        from creel.v1 import host_pb2, host_pb2_grpc, machines_pb2, machines_pb2_grpc, workflows_pb2, workflows_pb2_grpc
        self.grpc = grpc
        self.status = status_pb2.Status
        self.arguments = arguments
        self.image = arguments.image
        self.channel = grpc.insecure_channel(f"unix:{arguments.socket}")
        self.m = machines_pb2
        self.w = workflows_pb2
        self.machines = machines_pb2_grpc.MachinesStub(self.channel)
        self.workflows = workflows_pb2_grpc.WorkflowsStub(self.channel)
        self.images = host_pb2_grpc.ImagesStub(self.channel)
        self.host = host_pb2_grpc.HostStub(self.channel)
        self.h = host_pb2
        self.health = health_pb2_grpc.HealthStub(self.channel)
        self.health_request = health_pb2.HealthCheckRequest
        self.reflection = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        self.reflection_request = reflection_pb2.ServerReflectionRequest

    # ---- what is expected

    def refused(self, code, call, *words):
        """The error of `call`, which must have this code, and these words in its message."""
        try:
            answer = call()
            if hasattr(answer, "__iter__") and not hasattr(answer, "DESCRIPTOR"):
                answer = list(answer)
        except self.grpc.RpcError as error:
            check(error.code().name == code, f"refused as {error.code().name}, expected {code}: {error.details()}")
            for word in words:
                check(word in error.details(), f"`{error.details()}` lacks `{word}`")
            say(f"refused as {code}: {error.details()}")
            return error
        raise AssertionError(f"expected {code}, and got {answer}")

    def details(self, error, kind):
        """The message of this kind in the error's details."""
        raw = dict(error.trailing_metadata()).get("grpc-status-details-bin")
        check(raw is not None, "the status has details")
        status = self.status.FromString(raw)
        for detail in status.details:
            if detail.type_url.rsplit("/", 1)[-1] == kind.DESCRIPTOR.full_name:
                return kind.FromString(detail.value)
        raise AssertionError(f"no {kind.DESCRIPTOR.full_name} among {[one.type_url for one in status.details]}")

    # ---- what creeld serves and counts

    def reflect(self, **request):
        """The one answer of reflection."""
        [answer] = self.reflection.ServerReflectionInfo(iter([self.reflection_request(**request)]), timeout=10)
        return answer

    def services(self):
        return {service.name for service in self.reflect(list_services="*").list_services_response.service}

    def measured(self, **expected):
        """What the metrics say now, which has to be this; `name__kind` is the series `name` of that kind."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(self.arguments.metrics)
            connection.sendall(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n")
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()
        check(answer.startswith("HTTP/1.1 200 "), "the metrics are served")
        series = dict(line.rsplit(" ", 1) for line in answer.splitlines() if line.startswith("creel_"))
        for name, value in expected.items():
            name, _, kind = name.partition("__")
            name += f'{{kind="{kind}"}}' if kind else ""
            check(name in series, f"there is a series {name}")
            check(float(series[name]) == value, f"{name} is {series[name]}, expected {value}")

    # ---- machines

    def inspect(self, machine_id, **more):
        return self.machines.Inspect(self.m.InspectRequest(machine_id=machine_id, **more), timeout=10)

    def files(self, machine_id, data=b"", **work):
        """What an exec that copies files has written, by stream, and its exit status."""
        pieces = [self.m.ExecInput(offset=at, data=data[at:at + (64 << 10)]) for at in range(0, len(data), 64 << 10)]
        start = self.m.ExecRequest(start=self.m.ExecStart(machine_id=machine_id, **work))
        messages = [start, *(self.m.ExecRequest(input=piece) for piece in pieces)]
        written = {self.m.STREAM_STDOUT: b"", self.m.STREAM_STDERR: b""}
        for event in self.machines.Exec(iter(messages), timeout=60):
            if event.WhichOneof("event") == "output":
                written[event.output.stream] += event.output.data
        check(event.verdict.outcome.WhichOneof("outcome") == "exited", f"the copy ends by itself: {event.verdict}")
        return written[self.m.STREAM_STDOUT], written[self.m.STREAM_STDERR].decode(), event.verdict.outcome.exited

    def asleep(self, machine_id):
        """Whether some `sleep` runs in the machine."""
        return self.exec(machine_id, "pidof", "sleep")[1].outcome.exited == 0

    def create(self, **start):
        start.setdefault("image", self.image)
        calls = self.machines.Create(iter([self.m.CreateRequest(start=self.m.CreateStart(**start))]), timeout=120)
        machine = None
        for event in calls:
            if event.WhichOneof("event") == "ready":
                machine = event.ready
                break
        check(machine is not None, "a machine is ready")
        return machine, calls

    def exec(self, machine_id, *argv, timeout=60, **more):
        start = self.m.ExecStart(machine_id=machine_id, program=self.m.Program(argv=argv), **more)
        out, verdict = b"", None
        for event in self.machines.Exec(iter([self.m.ExecRequest(start=start)]), timeout=timeout):
            kind = event.WhichOneof("event")
            if kind == "output":
                check(event.output.raw_offset == len(out) or event.output.stream != self.m.STREAM_STDOUT, "offsets")
                out += event.output.data
            elif kind == "verdict":
                verdict = event.verdict
        return out, verdict

    def hold(self, machine_id, **start):
        """A call of `Exec` and the queue of what to say in it; None closes this side. The first event is `attached`."""
        said = queue.SimpleQueue()
        said.put(self.m.ExecRequest(start=self.m.ExecStart(machine_id=machine_id, **start)))
        call = self.machines.Exec(iter(said.get, None), timeout=60)
        attached = next(call).attached
        return call, said, attached

    # ---- workflows

    def key(self, workflow_id, owner="did:plc:alice"):
        tenant = self.w.WorkflowTenant(owner=owner, repo_did="did:plc:repo")
        return self.w.WorkflowKey(tenant=tenant, workflow_id=workflow_id)

    def init(self, key, manifest, **more):
        trigger = self.w.Trigger(
            push=self.w.PushTrigger(ref="refs/heads/main", new_sha="0123456789abcdef0123456789abcdef01234567"),
            repository=self.w.TriggerRepository(
                knot="knot.example.org", did="did:plc:alice", repo_did="did:plc:repo", name="core", default_branch="main"))
        request = self.w.InitRequest(
            workflow=key, file_name="ci.yml", manifest=manifest.replace("IMAGE", self.image), trigger=trigger, **more)
        return self.workflows.Init(request, timeout=20).workflow

    def acquire(self, key, **more):
        events = list(self.workflows.AcquireSlot(self.w.AcquireSlotRequest(workflow=key, **more), timeout=120))
        check(events[-1].WhichOneof("event") == "acquired", "the slot is acquired")

    def setup(self, key):
        events = list(self.workflows.Setup(self.w.WorkflowSetupRequest(workflow=key), timeout=120))
        check(events[-1].WhichOneof("event") == "ready", "the machine is ready")
        return events

    def step(self, key, index, timeout=60, **secrets):
        variables = [self.m.Variable(name=name, value=value) for name, value in secrets.items()]
        request = self.w.RunStepRequest(workflow=key, step=index, secrets=variables)
        return self.workflows.RunStep(request, timeout=timeout).verdict

    def get(self, key):
        return self.workflows.Get(self.w.GetWorkflowRequest(workflow=key), timeout=10).workflow

    def lines(self, key, **more):
        events = self.workflows.Logs(self.w.LogsRequest(workflow=key, lines=True, **more), timeout=60)
        return [event.line for event in events if event.WhichOneof("event") == "line"]

    def destroy(self, key):
        return self.workflows.Destroy(self.w.DestroyWorkflowRequest(workflow=key), timeout=90).workflow

    def cancel(self, key):
        return self.workflows.Cancel(self.w.CancelWorkflowRequest(workflow=key), timeout=30).workflow


HELLO = """engine: microvm
image: IMAGE
when:
  - event: push
    branch: main
clone:
  skip: true
environment:
  GREETING: hello
steps:
  - name: greet
    command: echo "$GREETING from $TANGLED_REF_NAME"
  - name: use a secret
    command: |
      echo "token: $TOKEN" >&2
      test "$TOKEN" = hunter2hunter2
  - name: finish
    command: uname
"""

FAILING = HELLO.replace("command: uname", "command: exit 7\n  - name: never\n    command: echo never")
SLEEPING = HELLO.replace("command: uname", "command: echo napping; sleep 300")


def scenario_machine_life(world):
    """A machine from its creation to its end."""
    info = world.host.Info(world.h.HostInfoRequest(), timeout=10)
    say(f"creeld {info.version}, {info.accel}, {info.transport}, {info.machines} of {info.max_machines} machines")
    images = [image.name for image in world.images.List(world.h.ListImagesRequest(), timeout=10).images]
    check(world.image in images, f"{world.image} is among {images}")
    machine, _ = world.create(workflow_id="python")
    check(machine.image == world.image and machine.memory_mib > 0, "it says what it is")
    out, verdict = world.exec(machine.id, "sh", "-c", "printf 'a\\377b'; exit 3")
    check(out == b"a\xffb", f"bytes arrive as they are: {out!r}")
    check(verdict.outcome.exited == 3, f"exit code 3: {verdict}")
    out, verdict = world.exec(machine.id, "sleep", "100", timeout_us=500_000)
    check(verdict.outcome.WhichOneof("outcome") == "timed_out", f"timed out: {verdict}")
    listed = [one.id for one in world.machines.List(world.m.ListRequest(), timeout=10).machines]
    check(machine.id in listed, "it is listed")
    ended = world.machines.Destroy(world.m.DestroyRequest(machine_id=machine.id), timeout=90).machine
    check(ended.state == world.m.MACHINE_STATE_ENDED, "it has ended")
    again = world.machines.Destroy(world.m.DestroyRequest(machine_id=machine.id), timeout=90).machine
    check(again.state == world.m.MACHINE_STATE_ENDED, "ending it again is no error")


def scenario_machine_bounds(world):
    """Cancellation, the caller's deadline, bad input."""
    machine, _ = world.create()
    start = world.m.ExecStart(machine_id=machine.id, program=world.m.Program(argv=["sh", "-c", "echo on; sleep 100"]))
    call = world.machines.Exec(iter([world.m.ExecRequest(start=start)]))
    check(next(call).WhichOneof("event") == "attached", "the call is attached first")
    check(next(call).output.data == b"on\n", "it runs")
    call.cancel()
    world.refused("CANCELLED", lambda: list(call))
    eventually(10, "no process of it is left", lambda: not world.asleep(machine.id))
    call = world.machines.Exec(iter([world.m.ExecRequest(start=start)]), timeout=5)
    check(next(call).WhichOneof("event") == "attached" and next(call).output.data == b"on\n", "another one runs")
    world.refused("DEADLINE_EXCEEDED", lambda: list(call))
    eventually(10, "nor of one whose caller's time was over", lambda: not world.asleep(machine.id))
    world.refused("INVALID_ARGUMENT", lambda: world.exec("../../etc", "true"))
    world.refused("NOT_FOUND", lambda: world.exec("zzzzzzzzzz", "true"), "zzzzzzzzzz")
    world.refused("INVALID_ARGUMENT", lambda: world.exec(machine.id))
    world.refused("INVALID_ARGUMENT", lambda: world.create(memory_mib=0), "memory_mib")
    error = world.refused("INVALID_ARGUMENT", lambda: world.create(image="no-such-image"), "no-such-image")
    failure = world.details(error, world.m.SetupFailure)
    check("no-such-image" in failure.bad_input, f"details: {failure}")
    world.machines.Destroy(world.m.DestroyRequest(machine_id=machine.id, kill=True), timeout=60)


def scenario_machine_in_use(world):
    """A machine that is looked at, signalled, typed into, and given files, by whoever is told of all that."""
    m = world.m
    listed = {image.name: image for image in world.images.List(world.h.ListImagesRequest(), timeout=10).images}
    inspect_image = lambda name: world.images.Inspect(world.h.InspectImageRequest(name=name), timeout=10)
    image = inspect_image(world.image)
    check((image.arch, image.memory_mib, image.vcpus)
          == (listed[image.name].arch, listed[image.name].memory_mib, listed[image.name].vcpus), "an image is as it is listed")
    check(listed[image.name].size_bytes > 0 and not listed[image.name].problem, "nothing is wrong with it")
    check(image.shell.startswith("/") and isinstance(json.loads(image.spec_json), dict), f"it has a shell: {image.shell}")
    world.refused("NOT_FOUND", lambda: inspect_image("no-such-image"), "no-such-image")
    world.refused("INVALID_ARGUMENT", lambda: inspect_image("../etc"))

    before = list(world.machines.Events(m.EventsRequest(), timeout=10))
    last = before[-1].machine.sequence if before else 0
    world.refused("OUT_OF_RANGE", lambda: world.machines.Events(m.EventsRequest(since=last + 1000), timeout=10))
    happenings = world.machines.Events(m.EventsRequest(follow=True, since=last), timeout=300)
    machine, _ = world.create(workflow_id="in-use")
    console = world.machines.Console(m.ConsoleRequest(machine_id=machine.id, follow=True), timeout=300)

    look_at_a_machine(world, machine, image)
    stop_a_program(world, machine)
    type_into_a_machine(world, machine)
    copy_files(world, machine)

    world.machines.Destroy(m.DestroyRequest(machine_id=machine.id, kill=True), timeout=90)
    check(b"Linux version" in b"".join(chunk.data for chunk in console), "a console that is followed ends with its machine")
    ended = world.inspect(machine.id)
    check(ended.machine.state == m.MACHINE_STATE_ENDED and not ended.processes, "it has no processes any more")
    rounds = list(world.machines.Stats(m.StatsRequest(machine_ids=[machine.id], interval_us=100_000), timeout=20))
    check([one.state for told in rounds for one in told.machines] == [m.MACHINE_STATE_ENDED], "statistics end with it too")

    seen = []
    while not seen or seen[-1].machine_id != machine.id or seen[-1].WhichOneof("what") != "ended":
        seen.append(next(happenings).machine)
    happenings.cancel()
    check([one.sequence for one in seen] == list(range(last + 1, last + 1 + len(seen))), "events have no gaps")
    of_it = [one for one in seen if one.machine_id == machine.id]
    check(all(one.workflow_id == "in-use" and one.creator_uid == os.getuid() for one in of_it), "they say whose machine it is")
    whats = [one.WhichOneof("what") for one in of_it]
    check(whats[:2] == ["created", "ready"] and whats[-2:] == ["ending", "ended"], f"its life is told: {whats}")
    check(of_it[0].created.image == world.image and of_it[-1].ended.outcome.WhichOneof("outcome") == "cancelled", "with its end")
    naps = [one for one in of_it if "nap" in (one.exec_started.exec_id, one.exec_ended.exec_id)]
    check([one.WhichOneof("what") for one in naps] == ["exec_started", "exec_ended"], "so is a program's")
    check(naps[1].exec_ended.verdict.outcome.signalled == 15, f"with how it ended: {naps[1]}")


def look_at_a_machine(world, machine, image):
    """`Inspect`, `Stats` and `Console` of a machine that has nothing to do."""
    m = world.m
    seen = world.inspect(machine.id)
    check((seen.machine.id, seen.machine.state) == (machine.id, m.MACHINE_STATE_READY), "it is ready")
    check((seen.machine.memory_mib, seen.machine.vcpus) == (image.memory_mib, image.vcpus), "it has what its image asks for")
    check(seen.lifetime == m.LIFETIME_DETACHED and not seen.HasField("max_age_us"), "it lives until it is destroyed")
    phases = [phase.phase for phase in seen.setup if phase.HasField("took_us")]
    check(phases == [m.PHASE_PREPARE, m.PHASE_SPAWN, m.PHASE_BOOT, m.PHASE_HANDSHAKE], f"its setup is told: {phases}")
    names = [process.name for process in seen.processes]
    check(seen.processes[0].pid == seen.machine.keeper_pid and any(name.startswith("qemu") for name in names), f"{names}")
    check(seen.HasField("limits") == seen.machine.HasField("cgroup"), "it has limits where it has a cgroup")
    check(seen.directory.endswith(machine.id) and seen.qemu_version, f"it has a directory: {seen.directory}")
    check(not seen.HasField("console_tail"), "nobody asked for its console")
    check(len(world.inspect(machine.id, console_bytes=100).console_tail) == 100, "whoever asks gets its end")
    world.refused("INVALID_ARGUMENT", lambda: world.inspect(machine.id, console_bytes=1 << 20), "console_bytes")
    world.refused("NOT_FOUND", lambda: world.inspect("zzzzzzzzzz"), "zzzzzzzzzz")

    stats = lambda **more: world.machines.Stats(m.StatsRequest(**more), timeout=20)
    [told] = list(stats())
    check(machine.id in [one.machine_id for one in told.machines], "it is among all that live")
    call = stats(machine_ids=[machine.id], interval_us=100_000)
    first, second = next(call), next(call)
    call.cancel()
    check(first.at_us < second.at_us, "statistics are told again")
    [one], [other] = first.machines, second.machines
    check(one.memory_bytes > 1 << 20 and one.pids > 1 and 0 < one.cpu_us <= other.cpu_us, f"they count: {one}")
    world.refused("INVALID_ARGUMENT", lambda: stats(interval_us=1), "interval_us")
    world.refused("NOT_FOUND", lambda: stats(machine_ids=[machine.id, "zzzzzzzzzz"]), "zzzzzzzzzz")

    console = b""
    for chunk in world.machines.Console(m.ConsoleRequest(machine_id=machine.id), timeout=20):
        check(chunk.offset == len(console), "the console comes from its first byte on")
        console += chunk.data
    check(b"Linux version" in console, "it is the guest's")
    world.refused("NOT_FOUND", lambda: world.machines.Console(m.ConsoleRequest(machine_id="zzzzzzzzzz"), timeout=20))


def stop_a_program(world, machine):
    """`Signal`, to a program that `Inspect` and `Stats` count while it runs."""
    m = world.m
    program = m.Program(argv=["sh", "-c", "echo on; exec sleep 100"])
    call, said, _ = world.hold(machine.id, exec_id="nap", program=program)
    check(next(call).output.data == b"on\n", "a program runs")
    [told] = list(world.machines.Stats(m.StatsRequest(machine_ids=[machine.id]), timeout=20))
    check((world.inspect(machine.id).machine.execs, told.machines[0].execs) == (1, 1), "it is counted")
    signal = lambda number, exec_id="nap": world.machines.Signal(
        m.SignalRequest(machine_id=machine.id, exec_id=exec_id, signal=number), timeout=20)
    world.refused("INVALID_ARGUMENT", lambda: signal(65), "65")
    world.refused("NOT_FOUND", lambda: signal(15, "no-such-exec"), "no-such-exec")
    signal(15)
    verdict = list(call)[-1].verdict
    check(verdict.outcome.signalled == 15, f"a signal ends it: {verdict}")
    said.put(None)
    world.refused("NOT_FOUND", lambda: signal(15), "nap")


def type_into_a_machine(world, machine):
    """`Shell`."""
    m = world.m
    shell = lambda machine_id, typed: world.machines.Shell(iter([
        m.ShellRequest(start=m.ShellStart(machine_id=machine_id, term="vt220", size=m.TerminalSize(rows=31, columns=97))),
        m.ShellRequest(data=typed)]), timeout=60)
    # What is typed is shown as well: what is looked for must not stand in it.
    events = list(shell(machine.id, b"stty size; echo $TERM-$(id -un); exit 7\n"))
    shown = b"".join(event.data for event in events)
    check(b"31 97\r\n" in shown and b"vt220-spindle-workflow\r\n" in shown, f"a terminal shows: {shown!r}")
    check(events[-1].verdict.outcome.exited == 7, f"the shell has exited: {events[-1]}")
    world.refused("NOT_FOUND", lambda: list(shell("zzzzzzzzzz", b"exit\n")), "zzzzzzzzzz")


def copy_files(world, machine):
    """The work `WriteFiles` and `ReadFiles`: there as an archive of ours, and back as one of the guest's."""
    m = world.m
    content = os.urandom(150_000)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        directory = tarfile.TarInfo("notes")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
        file = tarfile.TarInfo("notes/random")
        file.size, file.mode = len(content), 0o751
        tar.addfile(file, io.BytesIO(content))
    write = m.WriteFiles(destination="/workspace/in", directory=True)
    _, wrong, code = world.files(machine.id, archive.getvalue(), write_files=write)
    check((wrong, code) == ("", 0), f"files are written: {code} {wrong}")
    out, verdict = world.exec(machine.id, "sha256sum", "in/notes/random")
    expected = hashlib.sha256(content).hexdigest()
    check(verdict.outcome.exited == 0 and out.decode().startswith(expected), f"programs find them: {out!r}")
    archive, wrong, code = world.files(machine.id, read_files=m.ReadFiles(path="/workspace/in/notes"))
    check((wrong, code) == ("", 0), f"files are read: {code} {wrong}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        check(tar.getnames() == ["notes", "notes/random"], f"their paths are as promised: {tar.getnames()}")
        check(tar.getmember("notes/random").mode == 0o751, "their modes are kept")
        check(tar.extractfile("notes/random").read() == content, "so is what is in them")
    archive, wrong, code = world.files(machine.id, read_files=m.ReadFiles(path="/workspace/no-such-place"))
    check(code != 0 and "no-such-place" in wrong, f"what is not there is told: {code} {wrong}")


def scenario_reflection(world):
    """Reflection tells the same of the API as its .proto files."""
    from google.protobuf import descriptor_pb2
    names = world.services()
    check("grpc.health.v1.Health" in names, f"what is not creel's is listed too: {names}")
    for file in (world.m.DESCRIPTOR, world.w.DESCRIPTOR, world.h.DESCRIPTOR):
        for service in file.services_by_name.values():
            check(service.full_name in names, f"{service.full_name} is listed")
            [told] = world.reflect(file_containing_symbol=service.full_name).file_descriptor_response.file_descriptor_proto
            told = descriptor_pb2.FileDescriptorProto.FromString(told)
            [methods] = [one.method for one in told.service if one.name == service.name]
            check(told.package == file.package and {method.name for method in methods} == set(service.methods_by_name),
                  f"it has the methods {', '.join(service.methods_by_name)}")
    world.refused("NOT_FOUND", lambda: world.reflect(file_containing_symbol="creel.v1.Nothing"))


def scenario_slots(world):
    """One slot, which a workflow has and another one waits for, as the metrics show it."""
    first, second = world.key("python-first"), world.key("python-second")
    world.measured(creel_slots=1, creel_slots_used=0, creel_queue_length=0, creel_leases__directory=0)
    world.init(first, SLEEPING)
    world.setup(first)
    world.init(second, HELLO)
    waiting = world.workflows.AcquireSlot(world.w.AcquireSlotRequest(workflow=second), timeout=120)
    event = next(waiting)
    check(event.WhichOneof("event") == "ahead" and event.ahead == 0, "the second one is the next")
    world.measured(creel_slots=1, creel_slots_used=1, creel_queue_length=1, creel_leases__directory=1)
    info = world.host.Info(world.h.HostInfoRequest(), timeout=10)
    check((info.slots, info.slots_held, info.slots_waiting) == (1, 1, 1), "the host says the same")
    world.destroy(first)
    check([event.WhichOneof("event") for event in waiting] == ["acquired"], "the slot of the first one is the second one's")
    world.measured(creel_slots=1, creel_slots_used=1, creel_queue_length=0, creel_leases__directory=0)
    world.destroy(second)
    world.measured(creel_slots=1, creel_slots_used=0, creel_queue_length=0, creel_leases__directory=0)


def scenario_exec_input(world):
    """5 MiB into a program, its call given up in the midst and another attached; acknowledged as they come."""
    m = world.m
    machine, _ = world.create()
    data = os.urandom(5 << 20)
    program = m.Program(argv=["sh", "-c", "echo ready; sha256sum"])
    held = {"input": True, "acknowledges": True, "linger_us": 30_000_000}
    call, said, attached = world.hold(machine.id, exec_id="hash", program=program, **held)
    check(attached.exec_id == "hash" and attached.input_offset == 0, "it is attached by its name")
    offset, written, out, first = 0, 0, b"", True
    while True:
        # No more than 256 KiB ahead of the program, so that acknowledgements are heeded.
        while offset < len(data) and offset - written < 256 << 10:
            piece = data[offset:offset + (64 << 10)]
            said.put(m.ExecRequest(input=m.ExecInput(offset=offset, data=piece)))
            offset += len(piece)
            if offset == len(data):
                said.put(m.ExecRequest(close_input=m.CloseInput()))
        event = next(call)
        kind = event.WhichOneof("event")
        if kind == "output":
            check(event.output.raw_offset == len(out), "output goes on where it was")
            out += event.output.data
            said.put(m.ExecRequest(acknowledge=m.Acknowledge(stdout_offset=len(out))))
        elif kind == "input_written":
            written = event.input_written.offset
        elif kind == "verdict":
            break
        if first and written > 1 << 20:
            first = False
            call.cancel()
            said.put(None)
            attach = m.Attach(stdout_offset=len(out))
            call, said, attached = world.hold(machine.id, exec_id="hash", attach=attach, **held)
            check(written <= attached.input_offset <= offset, f"input goes on at {attached.input_offset}")
            offset = attached.input_offset
    said.put(None)
    expected = hashlib.sha256(data).hexdigest()
    check(not first, "the call was given up once")
    check(event.verdict.outcome.exited == 0 and out.decode() == f"ready\n{expected}  -\n", f"the hash is right: {out!r}")

    # Without a word of acknowledging, and with the caller's side closed for the end of the input.
    start = m.ExecStart(machine_id=machine.id, input=True, program=m.Program(argv=["cat"]))
    messages = [m.ExecRequest(start=start), m.ExecRequest(input=m.ExecInput(data=b"a\xffb"))]
    events = list(world.machines.Exec(iter(messages), timeout=60))
    check(b"".join(event.output.data for event in events) == b"a\xffb", "bytes come back as they were")

    # The former caller is told, and offsets that can't be are refused.
    program = m.Program(argv=["sh", "-c", "echo on; sleep 100"])
    call, said, _ = world.hold(machine.id, exec_id="two", program=program, **held)
    check(next(event for event in call if event.WhichOneof("event") == "output").output.data == b"on\n", "it runs")
    latter, more, _ = world.hold(machine.id, exec_id="two", attach=m.Attach(stdout_offset=1), **held)
    world.refused("ABORTED", lambda: list(call), "two")
    rest = next(event for event in latter if event.WhichOneof("event") == "output").output
    check((rest.raw_offset, rest.data) == (1, b"n\n"), "another caller goes on where it wants")
    beyond = m.ExecStart(machine_id=machine.id, exec_id="two", attach=m.Attach(stdout_offset=9))
    world.refused("OUT_OF_RANGE", lambda: list(world.machines.Exec(iter([m.ExecRequest(start=beyond)]), timeout=20)), "9")
    more.put(m.ExecRequest(cancel=m.Cancel()))
    verdict = [event.verdict for event in latter if event.WhichOneof("event") == "verdict"][0]
    check(verdict.outcome.WhichOneof("outcome") == "cancelled", f"it is cancelled: {verdict}")
    for queued in (said, more):
        queued.put(None)
    unknown = m.ExecStart(machine_id=machine.id, exec_id="three", attach=m.Attach())
    world.refused("NOT_FOUND", lambda: list(world.machines.Exec(iter([m.ExecRequest(start=unknown)]), timeout=20)), "three")
    world.machines.Destroy(m.DestroyRequest(machine_id=machine.id, kill=True), timeout=60)


def scenario_workflow_life(world):
    """A workflow from Init to Destroy, each call twice."""
    limit = world.workflows.Timeout(world.w.TimeoutRequest(), timeout=10).timeout_us
    check(limit > 0, f"the limit is {limit} us")
    key = world.key("python-life")
    planned = world.init(key, HELLO)
    check([step.name for step in planned.steps] == ["greet", "use a secret", "finish"], "the steps are planned")
    check(world.init(key, HELLO).machine_id == planned.machine_id, "the same request, the same workflow")
    world.refused("ALREADY_EXISTS", lambda: world.init(key, FAILING))
    world.acquire(key)
    world.acquire(key)
    phases = [event.phase_finished.phase for event in world.setup(key) if event.WhichOneof("event") == "phase_finished"]
    check(phases == sorted(phases) and world.m.PHASE_BOOT in phases, f"phases: {phases}")
    world.setup(key)
    world.refused("FAILED_PRECONDITION", lambda: world.step(key, 1), "step 1")
    world.refused("INVALID_ARGUMENT", lambda: world.step(key, 99), "99")
    check(world.step(key, 0).outcome.exited == 0, "step 0 succeeds")
    check(world.step(key, 0).outcome.exited == 0, "its verdict is told again")
    check(world.step(key, 1, TOKEN="hunter2hunter2").outcome.exited == 0, "step 1 has its secret")
    followed = []
    follower = threading.Thread(target=lambda: followed.extend(world.lines(key, follow=True)))
    follower.start()
    check(world.step(key, 2).outcome.exited == 0, "step 2 succeeds")
    ended = world.destroy(key)
    check(ended.state == world.w.WORKFLOW_STATE_ENDED and ended.verdict.outcome.exited == 0, f"it succeeded: {ended.verdict}")
    check(world.destroy(key).state == world.w.WORKFLOW_STATE_ENDED, "again is no error")
    follower.join(30)
    check(not follower.is_alive(), "a follower ends with the log")
    lines = world.lines(key)
    check(len(followed) == len(lines), f"a follower sees all: {len(followed)} of {len(lines)}")
    data = {(line.step_id, line.stream): line.content for line in lines if line.kind == "data"}
    check(data[(0, world.m.STREAM_STDOUT)] == "hello from main", f"log: {data}")
    check(data[(1, world.m.STREAM_STDERR)] == "token: ***", f"the secret is masked: {data}")
    check(not any("hunter2" in str(line) for line in lines), "nowhere is the secret")
    marks = [(line.step_id, line.step_status) for line in lines if line.kind == "control"]
    check(marks == [(-1, "start"), (-1, "end"), (0, "start"), (0, "end"), (1, "start"), (1, "end"), (2, "start"), (2, "end")],
          f"marks: {marks}")
    later = world.lines(key, from_record=lines[-1].record)
    check(later and later[0].record == lines[-1].record, "a log can be read from a record on")
    listed = world.workflows.List(world.w.ListWorkflowsRequest(ended=True), timeout=10).workflows
    check([one for one in listed if one.key.workflow_id == "python-life"], "it is remembered")


def scenario_workflow_fails(world):
    """A failed step ends a workflow, and its verdict is told where the next step is asked for."""
    key = world.key("python-fails")
    world.init(key, FAILING)
    world.setup(key)
    world.step(key, 0)
    world.step(key, 1, TOKEN="hunter2hunter2")
    check(world.step(key, 2).outcome.exited == 7, "the step fails with 7")
    error = world.refused("FAILED_PRECONDITION", lambda: world.step(key, 3), "exited with code 7")
    check(world.details(error, world.m.Verdict).outcome.exited == 7, "details hold the verdict")
    check(world.destroy(key).verdict.outcome.exited == 7, "so does the workflow's end")


def scenario_workflow_bounds(world):
    """Cancel, deadlines of the caller and of the workflow, bad input."""
    key = world.key("python-cancel")
    machine_id = world.init(key, SLEEPING).machine_id
    world.setup(key)
    world.step(key, 0)
    world.step(key, 1, TOKEN="hunter2hunter2")
    world.refused("DEADLINE_EXCEEDED", lambda: world.step(key, 2, timeout=2))
    check(world.get(key).steps[2].running, "the wait has ended, the step has not")
    verdicts = []
    waiting = threading.Thread(target=lambda: verdicts.append(world.step(key, 2)))
    waiting.start()
    eventually(20, "it sleeps in the machine", lambda: world.asleep(machine_id))
    stopped = world.cancel(key)
    check(stopped.state == world.w.WORKFLOW_STATE_STOPPED, "it has stopped")
    waiting.join(20)
    check(verdicts and verdicts[0].outcome.WhichOneof("outcome") == "cancelled", f"the step is cancelled: {verdicts}")
    # Until `Destroy` the machine is there, for operators to look into.
    eventually(10, "it does not sleep in the machine any more", lambda: not world.asleep(machine_id))
    check("napping" in [line.content for line in world.lines(key)], "what it wrote is there")
    check(world.destroy(key).verdict.outcome.WhichOneof("outcome") == "cancelled", "the workflow was cancelled")

    key = world.key("python-late")
    world.init(key, SLEEPING, timeout_us=25_000_000)
    world.setup(key)
    world.step(key, 0)
    world.step(key, 1, TOKEN="hunter2hunter2")
    verdict = world.step(key, 2)
    check(verdict.outcome.WhichOneof("outcome") == "timed_out", f"its time is over: {verdict}")
    check(world.destroy(key).verdict.outcome.WhichOneof("outcome") == "timed_out", "so it ended")

    bad = world.refused("INVALID_ARGUMENT", lambda: world.init(world.key("python-bad"), HELLO.replace("steps:", "stpes:")))
    problems = world.details(bad, world.w.ManifestProblems).problems
    check(problems and problems[0].line > 0 and "steps" in str(problems), f"problems have a place: {problems}")
    world.refused("NOT_FOUND", lambda: world.init(world.key("python-bad"), HELLO.replace("IMAGE", "no-such-image")), "no-such-image")
    world.refused("INVALID_ARGUMENT", lambda: world.init(world.key(""), HELLO))
    world.refused("NOT_FOUND", lambda: world.get(world.key("never-was")))
    world.refused("NOT_FOUND", lambda: world.get(world.key("python-cancel", owner="did:plc:bob")))


def scenario_stranger(world):
    """Somebody without a role: health, and nothing else."""
    check(world.health.Check(world.health_request(), timeout=10).status == 1, "creeld is healthy")
    world.refused("PERMISSION_DENIED", lambda: world.machines.List(world.m.ListRequest(), timeout=10), "group")
    world.refused("PERMISSION_DENIED", lambda: world.create(), "group")
    world.refused("PERMISSION_DENIED", lambda: world.init(world.key("x"), HELLO), "group")
    world.refused("PERMISSION_DENIED", lambda: world.images.List(world.h.ListImagesRequest(), timeout=10), "group")
    world.refused("PERMISSION_DENIED", lambda: world.host.Info(world.h.HostInfoRequest(), timeout=10), "group")
    world.refused("PERMISSION_DENIED", world.services, "group")


def scenario_spindle(world):
    """A member of creel-spindle: its own workflows, and no machine."""
    world.refused("PERMISSION_DENIED", lambda: world.machines.List(world.m.ListRequest(), timeout=10), "creel")
    world.refused("PERMISSION_DENIED", lambda: world.create(), "creel")
    owner = world.arguments.owner
    key = world.key("mine", owner=owner)
    world.init(key, SLEEPING)
    world.setup(key)
    check(world.step(key, 0).outcome.exited == 0, "a step runs")
    # Until the other one has seen what it may see.
    print("ready", flush=True)
    sys.stdin.readline()
    check(world.get(key).state == world.w.WORKFLOW_STATE_RUNNING, "nobody has ended it")
    check(world.step(key, 1, TOKEN="hunter2hunter2").outcome.exited == 0, "it goes on")
    world.destroy(key)


def scenario_intruder(world):
    """Another member of creel-spindle, who names the first one's tenant and workflow."""
    key = world.key("mine", owner=world.arguments.owner)
    for call in (
        lambda: world.get(key),
        lambda: world.step(key, 1),
        lambda: world.setup(key),
        lambda: world.acquire(key),
        lambda: world.cancel(key),
        lambda: world.destroy(key),
        lambda: list(world.workflows.Logs(world.w.LogsRequest(workflow=key), timeout=10)),
    ):
        world.refused("NOT_FOUND", call)
    listed = world.workflows.List(world.w.ListWorkflowsRequest(ended=True, tenant=key.tenant), timeout=10).workflows
    check(not listed, f"nothing is listed: {listed}")
    everything = world.workflows.List(world.w.ListWorkflowsRequest(ended=True), timeout=10).workflows
    check(all(one.creator_uid == os.getuid() for one in everything), "nor without a tenant")
    # The name is free for the intruder, and what it makes is its own.
    mine = world.init(key, HELLO)
    check(mine.creator_uid == os.getuid(), "it is another workflow")
    world.destroy(key)


def say(text):
    print(f"  {text}", flush=True)


def check(holds, text):
    if not holds:
        raise AssertionError(text)
    say(text)


def eventually(seconds, text, holds):
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {text}")
        time.sleep(0.2)
    say(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--socket", default="/run/creel/creel.sock")
    parser.add_argument("--stubs", required=True, help="where the stubs are")
    parser.add_argument("--image", default="tiny")
    parser.add_argument("--owner", default="did:plc:alice")
    parser.add_argument("--metrics", help="the unix socket of creeld's metrics, for `slots`")
    parser.add_argument("--proto", help="proto/proto, for `stubs`")
    parser.add_argument("what", nargs="+")
    arguments = parser.parse_args()
    if arguments.what == ["stubs"]:
        stubs(arguments.proto, arguments.stubs)
        return
    for name in arguments.what:
        print(name, flush=True)
        globals()[f"scenario_{name}"](World(arguments))


if __name__ == "__main__":
    main()
