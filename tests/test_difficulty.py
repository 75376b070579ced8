"""benchmarks/difficulty.py: AUROC by severity of what was drawn, from tables small enough to count by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.errors import UserError
from pipeline.params import EvaluateParams

HEADER = "Image Index,Finding,Severity,Side,Drawn,Labelled"
FILMS = [f"{patient:08d}_000.png" for patient in range(12)]
SEVERITIES = {0: 0.1, 1: 0.2, 2: 0.5, 3: 0.55, 4: 0.8, 5: 0.9}
SCORES = (0.2, 0.4, 0.4, 0.7, 0.9, 0.95, 0.1, 0.3, 0.3, 0.4, 0.6, 0.65)
"""Of the twelve films; those from number 6 on have no mass."""


@pytest.fixture(scope="module")
def difficulty(repository: Path):
    """Return the benchmark as a module."""
    sys.path.insert(0, str(repository / "benchmarks"))
    try:
        import difficulty
    finally:
        sys.path.pop(0)
    return difficulty


def predictions(labels: dict[int, int] | None = None) -> pd.DataFrame:
    known = dict.fromkeys(SEVERITIES, 1) if labels is None else labels
    return pd.DataFrame(
        {
            "image_id": FILMS,
            "patient_id": [name[:8] for name in FILMS],
            "split": "test",
            "y_Mass": [float(known.get(k, 0)) for k in range(12)],
            "p_Mass": SCORES,
        }
    )


def truth(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    return path


def drawn(numbers: dict[int, float] = SEVERITIES) -> list[str]:
    return [f"{FILMS[k]},Mass,{severity},R,1,1" for k, severity in numbers.items()]


@pytest.fixture
def rows(difficulty, tmp_path):
    table = difficulty.read_truth(truth(tmp_path / "truth.csv", drawn()))
    return difficulty.rows_of(predictions(), ["Mass"], table, EvaluateParams(resamples=100))


def test_each_third_is_compared_with_the_films_that_have_nothing(rows):
    # Pairs in the right order, ties one half, of 6 negatives 0.1, 0.3, 0.3, 0.4, 0.6, 0.65:
    # 0.2: 1; 0.4: 3.5; 0.4: 3.5; 0.7, 0.9 and 0.95: 6 each.
    expected = [26 / 36, 4.5 / 12, 9.5 / 12, 12 / 12]
    assert [score.value for score in rows[1].scores] == pytest.approx(expected)
    assert rows[1].films == [6, 2, 2, 2]
    assert rows[1].patients == [6, 2, 2, 2]
    assert rows[1].scores[0].ci_low < 26 / 36 < rows[1].scores[0].ci_high


def test_an_interval_stands_where_ten_patients_have_the_finding(difficulty, rows):
    scores, cuts = rows[1].scores, (0.4, 0.63)
    few, many = (
        difficulty.markdown([difficulty.Row("Mass", scores, [20] * 4, [patients] * 4)], cuts) for patients in (9, 10)
    )
    assert "| Mass | 0.722; 20 / 9 |" in few
    assert f"| Mass | 0.722 ({scores[0].ci_low:.3f} to {scores[0].ci_high:.3f}); 20 / 10 |" in many


def test_the_mean_of_one_finding_is_that_finding(rows):
    assert rows[0].name == "Mean"
    assert [score.value for score in rows[0].scores] == [score.value for score in rows[1].scores]


def test_the_label_may_be_wrong_and_the_drawing_counts(difficulty, tmp_path, rows):
    # Film 0 shows a mass that is not labelled, film 11 is labelled and shows none.
    lines = [line[:-1] + "0" if line.startswith(FILMS[0]) else line for line in drawn()]
    noisy = truth(tmp_path / "noisy.csv", [*lines, f"{FILMS[11]},Mass,,R,0,1"])
    table = predictions({**dict.fromkeys(range(1, 6), 1), 11: 1})
    found = difficulty.rows_of(table, ["Mass"], difficulty.read_truth(noisy), EvaluateParams(resamples=100))
    assert [score.value for score in found[1].scores] == [score.value for score in rows[1].scores]


def test_the_thirds_are_those_of_all_findings_together(difficulty, tmp_path):
    lines = [
        f"{FILMS[k]},{name},{s},R,1,1" for name, s in (("Mass", 0.1), ("Nodule", 0.4), ("Edema", 0.7)) for k in (0,)
    ]
    low, high = difficulty.cuts_of(difficulty.read_truth(truth(tmp_path / "t.csv", lines)))
    assert (low, high) == pytest.approx((0.3, 0.5))
    labels = difficulty.levels(np.array([[0.1], [0.4], [0.7], [np.nan]]), (low, high))
    assert [list(np.flatnonzero(one[:, 0] == 1)) for one in labels] == [[0, 1, 2], [0], [1], [2]]
    assert [one[3, 0] for one in labels] == [0, 0, 0, 0]
    assert np.isnan(labels[1][[1, 2], 0]).all()


def test_tables_of_two_data_sets_are_refused(difficulty, tmp_path):
    other = difficulty.read_truth(truth(tmp_path / "other.csv", drawn({7: 0.5})))
    with pytest.raises(UserError, match=rf"labels of 7 of 12 differ, first {FILMS[0]}"):
        difficulty.rows_of(predictions(), ["Mass"], other, EvaluateParams(resamples=100))


def test_command(repository, tmp_path):
    def run(name: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "benchmarks/difficulty.py", str(tmp_path / "p.csv"), "--truth", str(tmp_path / name)]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    predictions().to_csv(tmp_path / "p.csv", index=False)
    truth(tmp_path / "truth.csv", drawn())
    done = run("truth.csv")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("12 films of 12 patients")
    assert lines[2] == "| finding | all | mild, below 0.40 | moderate, to 0.63 | gross, from 0.63 |"
    # Of so few patients there is no interval, but for the mean, which stands for many findings.
    assert lines[5] == "| Mass | 0.722; 6 / 6 | 0.375; 2 / 2 | 0.792; 2 / 2 | 1.000; 2 / 2 |"
    missing = run("nowhere.csv")
    assert missing.returncode == 2
    assert "nowhere.csv is missing" in missing.stderr.splitlines()[-1]
    assert "Traceback" not in missing.stderr
