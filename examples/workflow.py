#!/usr/bin/python3
"""Runs a workflow file by creeld's API, call by call, as a CI runner does.

    workflow.py STUBS SOCKET FILE

STUBS is the directory that protoc wrote the Python stubs of proto/creel/v1 into (docs/api.md says how).
"""

import os.path
import sys
import uuid

stubs, socket, file = sys.argv[1:]
sys.path.insert(0, stubs)

import grpc
from creel.v1 import workflows_pb2 as api
from creel.v1.workflows_pb2_grpc import WorkflowsStub

creel = WorkflowsStub(grpc.insecure_channel(f"unix:{socket}"))

# Whose workflow it is, and what the caller calls it: every call names both.
key = api.WorkflowKey(
    tenant=api.WorkflowTenant(owner="did:plc:alice", repo_did="did:plc:core"),
    workflow_id=f"example-{uuid.uuid4()}",
)
planned = creel.Init(api.InitRequest(
    workflow=key,
    file_name=os.path.basename(file),
    manifest=open(file).read(),
    trigger=api.Trigger(manual=api.ManualTrigger()),
)).workflow

try:
    for event in creel.AcquireSlot(api.AcquireSlotRequest(workflow=key)):
        if event.WhichOneof("event") == "ahead":
            print(f"{event.ahead} before it", file=sys.stderr)
    for event in creel.Setup(api.WorkflowSetupRequest(workflow=key)):
        if event.WhichOneof("event") == "phase_finished":
            print(f"setup: {event.phase_finished.took_us / 1e6:.2f} s", file=sys.stderr)
    for index, step in enumerate(planned.steps):
        outcome = creel.RunStep(api.RunStepRequest(workflow=key, step=index)).verdict.outcome
        print(f"{step.name}: {str(outcome).strip() or 'exited: 0'}", file=sys.stderr)
        if outcome.WhichOneof("outcome") != "exited" or outcome.exited != 0:
            break
finally:
    # In every case: it frees the machine and the slot. The log stays for a while.
    ended = creel.Destroy(api.DestroyWorkflowRequest(workflow=key)).workflow

for event in creel.Logs(api.LogsRequest(workflow=key, lines=True)):
    if event.WhichOneof("event") == "line" and event.line.kind == "data":
        print(event.line.content)

sys.exit(ended.verdict.outcome.exited if ended.verdict.outcome.WhichOneof("outcome") == "exited" else 1)
