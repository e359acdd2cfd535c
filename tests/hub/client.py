"""What the Hub tests run in a process of its own: huggingface_hub reads its endpoint once, when it is imported.

`python -m tests.hub.client` reads a list of jobs from stdin, does them in order, and prints what came of each as JSON.
"""

import json
import sys

import numpy as np

import hsunmix.models
from tests.pipelines.tiny import FIELDS, tiny_inputs, tiny_pipeline


def run_and_save(pipe, path):
    """Unmix the tiny cube and write every field that is not None."""
    pipe.set_progress_bar_config(disable=True)
    output = pipe(**tiny_inputs())
    np.savez(path, **{name: getattr(output, name) for name in FIELDS if getattr(output, name) is not None})


def do(job):
    """One job: `push` a tiny pipeline, `load` a pipeline and run it, or load one `model`; what to report of it."""
    if job["action"] == "push":
        pipe = tiny_pipeline(seed=job.get("seed", 0))
        pipe.push_to_hub(job["repo"], **job.get("kwargs", {}))
    elif job["action"] == "model":
        model = getattr(hsunmix.models, job["class"]).from_pretrained(job["repo"], **job["kwargs"])
        return {"class": type(model).__name__}
    else:
        pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(job["repo"], **job.get("kwargs", {}))
    if "save_as" in job:
        run_and_save(pipe, job["save_as"])
    return {"class": type(pipe).__name__}


def main():
    """Do every job, whatever happens to the others."""
    reports = []
    for job in json.load(sys.stdin):
        try:
            reports.append(do(job))
        except Exception as error:
            kinds = [kind.__name__ for kind in type(error).__mro__]
            reports.append({"error": str(error), "kinds": kinds})
    json.dump(reports, sys.stdout)


if __name__ == "__main__":
    main()
