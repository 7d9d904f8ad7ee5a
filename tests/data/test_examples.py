from clouds_tf.data import examples
from clouds_tf.dataset import CLOUDS


def test_parse_reads_what_make_made():
    rles = ["1 2", "", "3 4 9 1", ""]
    example = examples.make_example("a.jpg", b"\xff\xd8", (420, 630), rles, 3, CLOUDS)
    parsed = examples.parse_example(example.SerializeToString())
    assert parsed["filename"] == b"a.jpg" and parsed["encoded"] == b"\xff\xd8"
    assert parsed["runs"].numpy().tolist() == [[0, 0, 2], [2, 2, 4], [2, 8, 1]]
    assert parsed["size"].numpy().tolist() == [420, 630]
    assert parsed["mask_size"].numpy().tolist() == [1400, 2100]
    assert parsed["fold"].numpy() == 3


def test_the_keys_are_those_of_the_design():
    example = examples.make_example("a.jpg", b"", (1, 2), ["", "", "", ""], 5, CLOUDS)
    assert set(example.features.feature) == {
        "image/filename",
        "image/encoded",
        "image/height",
        "image/width",
        "mask/runs",
        "mask/height",
        "mask/width",
        "fold",
    }
