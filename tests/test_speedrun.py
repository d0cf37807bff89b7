"""Public speedruns take part unedited, on a CPU, too; here one is made up that looks like them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from benchmarks import host, speedrun
from fasttrain.config import Data
from fasttrain.data import sources

# As airbench94_muon.py hangs together, without what makes it good.
SCRIPT = """
import sys
with open(sys.argv[0]) as f:
    code = f.read()
import torch
from torch import nn

SEEN = []

def zeropower_via_newtonschulz5(G):
    return G

class CifarLoader:
    def __init__(self, path, train=True, batch_size=500):
        name = "train" if train else "test"
        data = torch.load(f"{path}/{name}.pt", map_location=torch.device("cuda"))
        self.images = (data["images"].half() / 255).permute(0, 3, 1, 2)
        self.labels = data["labels"]

class CifarNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 10).half()

    def forward(self, x):
        inner = self.head(x.mean((2, 3)))
        SEEN.append((x.dtype, inner.dtype, len(x)))
        return inner

def print_training_details(variables, is_final_entry):
    raise AssertionError("nobody listens")

def main(run, model):
    loader = CifarLoader("cifar10", train=True, batch_size=2000)
    starter = torch.cuda.Event(enable_timing=True)
    ender = torch.cuda.Event(enable_timing=True)
    starter.record()
    with torch.no_grad():
        model.head.weight.normal_()
        logits = model(loader.images)
    assert logits.dtype == torch.float32
    print("the run talks")
    ender.record()
    torch.cuda.synchronize()
    time_seconds = 1e-3 * starter.elapsed_time(ender)
    print_training_details({"tta_val_acc": 1.0}, is_final_entry=False)
    tta_val_acc = float(logits.softmax(1)[0, 0])
    print_training_details(locals(), is_final_entry=True)

if __name__ == "__main__":
    raise AssertionError("the main program ran")
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder in which the scripts find pictures: more than the warm-up shall see."""
    (tmp_path / "cifar10").mkdir()
    for split in ("train", "test"):
        content = {
            "images": torch.full((host.SHORT + 1, 4, 4, 3), 200, dtype=torch.uint8),
            "labels": torch.zeros(host.SHORT + 1, dtype=torch.long),
        }
        torch.save(content, tmp_path / "cifar10" / f"{split}.pt")
    return tmp_path


@pytest.fixture
def on_a_cpu(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder, in which nothing is compiled and no GPU seen; where the script goes."""
    monkeypatch.chdir(pictures)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda _: None)
    return pictures / "speedrun.py"


def call(path: Path, script: str, *words: str, seeds: str = "") -> Result:
    path.write_text(script)
    words = (str(path), "--folder", str(path.parent), *words)
    return CliRunner().invoke(speedrun.main, words, input=seeds)


def test_one_run_ends_with_a_line_of_figures(on_a_cpu: Path) -> None:
    load, event = torch.load, torch.cuda.Event
    ended = call(on_a_cpu, SCRIPT, "--seed", "3")
    assert ended.exit_code == 0, ended.output
    (line,) = ended.stdout.splitlines()
    found = json.loads(line)
    assert 0 < found["accuracy"] < 1
    assert found["seconds"] > 0
    assert (torch.load, torch.cuda.Event) == (load, event)
    assert "the run talks" in ended.stderr


def test_a_contestant_says_when_it_is_warm_and_a_seed_decides(on_a_cpu: Path) -> None:
    ended = call(on_a_cpu, SCRIPT, seeds="5\n6\n5\n")
    ready, *lines = ended.stdout.splitlines()
    assert ready == "ready"
    first, other, again = (json.loads(line)["accuracy"] for line in lines)
    assert first == again != other


def test_on_a_cpu_it_works_in_bfloat16_and_gets_warm_with_few_pictures(on_a_cpu: Path) -> None:
    on_a_cpu.write_text(SCRIPT)
    script = speedrun.load(on_a_cpu)
    speedrun.serve(script, seed=0)
    warm, whole = script.SEEN
    assert warm == (torch.float32, torch.bfloat16, host.SHORT)
    assert whole == (torch.float32, torch.bfloat16, host.SHORT + 1)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise OSError('no such thing')", "cannot be imported: no such thing"),
        ("", "none of the speedruns that are known"),
        ("def train_proxy(hyp, model, seed): pass", "trains on a GPU only"),
        (SCRIPT.replace("zeropower_via_newtonschulz5", "another"), "trains on a GPU only"),
        (SCRIPT.replace("locals(), is_final_entry=True", "{}, False"), "without a word"),
    ],
)
def test_what_cannot_take_part_is_one_line(script: str, reason: str, on_a_cpu: Path) -> None:
    ended = call(on_a_cpu, script, "--seed", "0")
    assert ended.exit_code == 2
    assert reason in ended.stderr.splitlines()[-1]


def test_pictures_lie_in_no_order_of_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = sources.open_dataset(Data(dataset="shapes"))
    monkeypatch.setattr(sources, "open_dataset", lambda _: store)
    speedrun.write_pictures(tmp_path)
    train = torch.load(tmp_path / "cifar10" / "train.pt")
    assert len(train["labels"][:100].unique()) == len(store.classes)
    assert sorted(train["labels"].tolist()) == sorted(store.train.labels.tolist())
    at = int((torch.tensor(store.train.images) == train["images"][0]).all((1, 2, 3)).nonzero()[0])
    assert store.train.labels[at] == train["labels"][0]
    written = (tmp_path / "cifar10" / "train.pt").stat().st_mtime_ns
    speedrun.write_pictures(tmp_path)
    assert (tmp_path / "cifar10" / "train.pt").stat().st_mtime_ns == written


def test_a_script_finds_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("import sys\nname = sys.argv[0]\n")
    words = sys.argv
    assert speedrun.load(tmp_path / "a.py").name == str(tmp_path / "a.py")
    assert sys.argv is words
