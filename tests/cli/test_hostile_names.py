"""Class names, labels and folders with control characters are printed as one line each."""

import json

from genbench_jax.cli.genbench import main
from genbench_jax.store import files

FAKE = "x\nerror: disk full\x1b[2J"


def _raw(said):
  return [line for line in said.splitlines() if line.startswith("error:") or "\x1b" in line]


def test_a_dataset_is_shown_with_its_names_escaped(tmp_path, capsys):
  for name in ("cat", FAKE):
    (tmp_path / "test" / name).mkdir(parents=True)
  settings = {"class_names": {"cat": FAKE}, "templates": [f"a {{}} {FAKE}"]}
  (tmp_path / "dataset.yaml").write_text(json.dumps(settings))
  for flags in ((), ("--json",)):
    assert main(["benchmark", "show", f"folder:{tmp_path}", *flags]) == 0
    said = capsys.readouterr()
    assert "disk full" in said.out and not _raw(said.out + said.err)


def test_faults_of_a_work_folder_are_escaped(tmp_path, capsys):
  workdir = tmp_path / FAKE
  files.write_json(workdir / "runs" / f"{FAKE}.json", {})
  (workdir / "rows" / "digits").mkdir(parents=True)
  (workdir / "rows" / "digits" / f"{FAKE}.jsonl").write_bytes(b"no\n")
  assert main(["verify", str(workdir)]) in (1, 2)
  said = capsys.readouterr()
  assert "disk full" in said.out + said.err and not _raw(said.out + said.err)
