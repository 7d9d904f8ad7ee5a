import pytest

from clouds_tf.serving.answers import Answer
from clouds_tf.serving.parts import Parts

ANSWERS = [
    Answer("a.jpg", ("Fish", "Sugar"), (20, 30), ("1 2", ""), (0.5, 0.25), (0.1, 0.0), (0.2, 0.1)),
    Answer("b,\n.jpg", ("Fish",), reason="an empty file"),
]


def test_answers_come_back_in_the_order_of_the_parts(tmp_path):
    parts = Parts(str(tmp_path / "s.csv"), {"batch_size": 2})
    parts.start()
    parts.write(3, ANSWERS[1:])
    parts.write(0, ANSWERS[:1])
    assert parts.has(3) and not parts.has(1)
    again = Parts(str(tmp_path / "s.csv"), {"batch_size": 2})
    again.start()
    assert list(again.read([0, 3])) == ANSWERS
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_another_run_has_another_folder(tmp_path):
    one, two = (Parts(str(tmp_path / "s.csv"), {"batch_size": size}) for size in (1, 2))
    for parts in (one, two):
        parts.start()
    one.write(0, ANSWERS)
    assert one.folder != two.folder and not two.has(0)
    two.remove()
    assert list(one.read([0])) == ANSWERS


def test_parts_without_settings_are_refused(tmp_path):
    parts = Parts(str(tmp_path / "s.csv"), {})
    parts.start()
    parts.write(0, ANSWERS)
    (settings,) = tmp_path.glob("s.csv.parts/*/settings.json")
    settings.unlink()
    with pytest.raises(ValueError, match="holds parts without settings.json.*remove the folder"):
        parts.start()
    # A shard that was slow when the others were merged and removed stops, and makes nothing anew.
    with pytest.raises(ValueError, match="has been merged or removed by another process"):
        parts.write(1, ANSWERS)
    settings.write_text("{}")
    with pytest.raises(ValueError, match="settings.json: altered or damaged"):
        parts.start()


def test_a_merge_is_alone(tmp_path):
    one, two = (Parts(str(tmp_path / "s.csv"), {}) for _ in range(2))
    one.start()
    with one.in_use(alone=False):
        with two.in_use(alone=False):
            with pytest.raises(ValueError, match="2 other processes still predict parts"):
                with one.in_use(alone=True):
                    pass
    # What a killed process has left is no process.
    with open(f"{one.folder}/0123.lock", "w"):
        pass
    with one.in_use(alone=True):
        pass
