"""What is left of visitors: nothing."""

import os
import time

import numpy as np
import pytest

from hsunmix.demo.session import UPLOAD_SECONDS, Limits, SessionEnded, Sessions
from hsunmix.demo.unmixing import EXAMPLES, Unmixer

from ..cli.fake import FakePipeline


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_visitors_have_folders_of_their_own_that_nobody_can_guess(tmp_path):
    sessions = Sessions(tmp_path, Limits())
    first, second = sessions.get("a"), sessions.get("b")
    assert first.folder != second.folder and sessions.get("a") is first and len(first.folder.name) == 32
    assert "a" not in first.folder.relative_to(tmp_path).parts
    assert sessions.get("../../etc").folder.parent == first.folder.parent


def test_everything_goes_when_a_visitor_leaves(tmp_path):
    sessions = Sessions(tmp_path, Limits())
    kept, gone = sessions.get("kept"), sessions.get("gone")
    for session in (kept, gone):
        (session.new_folder("scene") / "scene.npy").write_bytes(b"x")
    sessions.end("gone")
    assert not gone.folder.exists() and gone.scene is None and sessions.find("gone") is None
    assert len(files_below(kept.folder)) == 1
    sessions.end_all()
    assert not tmp_path.exists()


def test_everything_goes_after_the_time(tmp_path):
    sessions = Sessions(tmp_path, Limits(minutes=1))
    idle, active, working = (sessions.get(key) for key in ("idle", "active", "working"))
    idle.used -= 61
    working.used -= 61
    with working.working():
        sessions.sweep()
        assert sessions.find("idle") is None and not idle.folder.exists()
        assert sessions.find("active") is active and sessions.find("working") is working


def test_files_that_nobody_took_go_and_fresh_ones_stay(tmp_path):
    sessions = Sessions(tmp_path, Limits())
    mine = sessions.get("a").new_folder("result") / "maps.zip"
    old, new = tmp_path / "0" / "old.npy", tmp_path / "1" / "new.npy"
    past = time.time() - UPLOAD_SECONDS - 1
    for path in (mine, old, new):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in (old, mine):
        os.utime(path, (past, past))
    sessions.sweep()
    assert not old.exists() and new.exists() and mine.exists()
    os.utime(old.parent, (past, past))
    sessions.sweep()
    assert not old.parent.exists() and new.exists()


def test_a_new_scene_replaces_the_old_one(tmp_path):
    session = Sessions(tmp_path, Limits()).get("a")
    (session.new_folder("scene") / "one.npy").write_bytes(b"x")
    (session.new_folder("scene") / "two.npy").write_bytes(b"x")
    assert [path.name for path in files_below(tmp_path)] == ["two.npy"]


def test_no_more_visitors_than_fit(tmp_path):
    sessions = Sessions(tmp_path, Limits(visitors=1))
    sessions.get("a")
    with pytest.raises(ValueError, match="1 visitors have a scene open"):
        sessions.get("b")
    sessions.end("a")
    assert sessions.get("b")


class LeavingPipeline(FakePipeline):
    """Its visitor leaves during the run; like the real one it calls back after a step."""

    num_timesteps = 2

    def __init__(self, leave, after):
        super().__init__()
        self.leave, self.after = leave, after

    def __call__(self, cube, **kwargs):
        self.leave()
        if self.after == "step":
            kwargs["callback_on_step_end"](self, 0, None, {})
            raise AssertionError("the run went on")
        output = super().__call__(cube, **kwargs)
        output.abundance_interval = lambda level: (output.abundances, output.abundances)
        return output


@pytest.mark.parametrize("after", ["step", "run"])
def test_a_visitor_who_leaves_during_a_run_leaves_nothing(tmp_path, after):
    sessions = Sessions(tmp_path, Limits())
    session = sessions.get("a")
    unmixer = Unmixer(lambda: LeavingPipeline(lambda: sessions.end("a"), after), "base", Limits())
    unmixer.open_example(session, next(iter(EXAMPLES)))
    with pytest.raises(SessionEnded):
        unmixer.unmix(session, 3, 2, 1, lambda *_: None)
    assert not files_below(tmp_path) and not session.folder.exists() and session.result is None


def test_a_run_of_an_older_scene_does_not_become_the_result_of_a_newer_one(tmp_path):
    session = Sessions(tmp_path, Limits()).get("a")
    names = list(EXAMPLES)
    unmixer = Unmixer(
        lambda: LeavingPipeline(lambda: unmixer.open_example(session, names[1]), "run"), "base", Limits()
    )
    unmixer.open_example(session, names[0])
    result = unmixer.unmix(session, 3, 2, 1, lambda *_: None)
    assert result.scene is not session.scene and session.result is None
    assert not np.array_equal(result.scene.cube.data, session.scene.cube.data)
