"""Jobs of `tests.hub.client` in fresh processes, whose only Hub is the one given and whose only cache is a folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start_jobs(hub, home, jobs, **environment):
    """Begin jobs in a fresh process; the process, which may be killed."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_TOKEN": hub.token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        **environment,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hub.client"],
        cwd=ROOT,
        env={**inherited, **settings},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdin.write(json.dumps(jobs))
    process.stdin.close()
    process.stdin = None
    return process


def finish_jobs(process):
    """Wait for the jobs; their reports."""
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return json.loads(output)


def run_jobs(hub, home, jobs, **environment):
    """Do jobs in a fresh process; their reports."""
    return finish_jobs(start_jobs(hub, home, jobs, **environment))
