import pytest

from clouds_tf.dataset import CLOUDS
from clouds_tf.training import Recipe
from clouds_tf.training.progress import epoch_line, summary_table

pytestmark = pytest.mark.lanes

CLASS_NAMES = CLOUDS.class_names


def _row(epoch, val_dice, seconds=600.0):
    row = {"epoch": epoch, "seconds": seconds, "loss": 1.0, "dice": 0.4, "val_loss": 1.1}
    row.update(
        val_dice=val_dice, val_tuned_dice=val_dice + 0.1, images_per_second=12.34, input_wait=0.031
    )
    return {**row, **{f"val_dice_{name}": val_dice + i for i, name in enumerate(CLASS_NAMES)}}


def test_a_line_on_an_epoch():
    history = [_row(1, 0.3, seconds=900.0), _row(2, 0.35, seconds=300.0)]
    assert epoch_line(history, 12) == (
        "epoch   2/12  loss 1.0000  Dice 0.4000  held out: loss 1.1000  Dice 0.3500 "
        "(tuned 0.4500)  12.3 images/s, input wait 3%, 1 h 40 min left"
    )


@pytest.mark.parametrize("seconds, left", [(9.0, "90 s left"), (600.0, "1 h 40 min left")])
def test_the_time_left_is_in_seconds_at_the_end(seconds, left):
    assert epoch_line([_row(2, 0.3, seconds)], 12).endswith(left)


def test_the_table_has_the_best_and_the_last_epoch():
    history = [_row(1, 0.1), _row(2, 0.3), _row(3, 0.2)]
    lines = summary_table(history, Recipe(), CLASS_NAMES).splitlines()
    cells = [line.split() for line in lines]
    assert cells[0] == ["epoch", "loss", "val_loss", "val_dice", "val_tuned_dice", *CLASS_NAMES]
    assert cells[1] == "2 (best) 1.0000 1.1000 0.3000 0.4000 0.3000 1.3000 2.3000 3.3000".split()
    assert cells[2] == "3 (last) 1.0000 1.1000 0.2000 0.3000 0.2000 1.2000 2.2000 3.2000".split()
    del history[0]["val_tuned_dice"]  # of an earlier version
    assert "tuned" not in summary_table(history, Recipe(), CLASS_NAMES)


@pytest.mark.parametrize("monitor, best", [("dice", 2), ("loss", 3), ("tuned_dice", 1)])
def test_the_monitor_decides_which_epoch_is_best(monitor, best):
    history = [
        {**_row(epoch, 0.5), "val_dice": dice, "val_loss": loss, "val_tuned_dice": tuned}
        for epoch, dice, loss, tuned in ((1, 0.1, 0.9, 0.6), (2, 0.3, 0.8, 0.5), (3, 0.2, 0.7, 0.4))
    ]
    lines = summary_table(history, Recipe(monitor=monitor), CLASS_NAMES).splitlines()
    assert lines[1].split()[:2] == [str(best), "(best)"]
