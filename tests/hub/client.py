"""What the Hub tests run in a process of its own: huggingface_hub reads its endpoint once, when it is imported.

`python -m tests.hub.client` reads a list of jobs from stdin, does them in order, and prints what came of each as JSON.
"""

import contextlib
import io
import json
import sys

import numpy as np
from diffusers import DiffusionPipeline

import hsunmix.cli.main
import hsunmix.models
from tests.pipelines.tiny import FIELDS, tiny_inputs, tiny_pipeline


def run_and_save(pipe, path):
    """Unmix the tiny cube and write every field that is not None."""
    pipe.set_progress_bar_config(disable=True)
    output = pipe(**tiny_inputs())
    np.savez(path, **{name: getattr(output, name) for name in FIELDS if getattr(output, name) is not None})


def do(job):
    """One job; what to report of it.

    `push` a tiny pipeline, a `component` of it or a `checkpoint`, by saving to a `folder` where one is given; `load` a
    pipeline and run it, with its own class or `load with the base class`; load one `model`; run the command (`cli`).
    """
    options = job.get("kwargs", {})
    if job["action"] == "push":
        pipe = tiny_pipeline(seed=job.get("seed", 0))
        if "checkpoint" in job:
            pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(job["checkpoint"])
        for parameter in pipe.unet.parameters():
            parameter.data *= job.get("factor", 1)
        if "folder" in job:
            pipe.save_pretrained(job["folder"], push_to_hub=True, repo_id=job["repo"])
        else:
            getattr(pipe, job.get("component", ""), pipe).push_to_hub(job["repo"], **options)
    elif job["action"] == "model":
        model = getattr(hsunmix.models, job["class"]).from_pretrained(job["repo"], **options)
        return {"class": type(model).__name__}
    elif job["action"] == "cli":
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as errors:
            code = hsunmix.cli.main.main(job["arguments"])
        return {"exit code": code, "stderr": errors.getvalue()}
    elif job["action"] == "load with the base class":
        loader = {"custom_pipeline": "pipelines/semi_blind_unmixing", "trust_remote_code": True}
        pipe = DiffusionPipeline.from_pretrained(job["repo"], **loader, **options)
        assert isinstance(pipe, hsunmix.SemiBlindUnmixingPipeline)
    else:
        pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(job["repo"], **options)
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
