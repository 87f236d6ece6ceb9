"""A model id becomes a folder with the needed files only; without network the user learns what to do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType
from urllib.parse import urlsplit

import pytest

from cosyvoice_core.checkpoint.directory import NEEDED
from cosyvoice_core.checkpoint.download import resolve_model
from cosyvoice_core.errors import CheckpointError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OFFICIAL = "FunAudioLLM/CosyVoice2-0.5B"
MODEL = "Someone/CosyVoice2-Test"
FILES = {name: f"content of {name}".encode() for name in (*NEEDED, "spk2info.pt")}
UNWANTED = {"flow.decoder.estimator.fp32.onnx": b"engine", "CosyVoice-BlankEN/model.safetensors": b"unused"}


class Hub(ThreadingHTTPServer):
    """A local model hub with one model, whose files may be changed; notes what it handed out."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {**FILES, **UNWANTED}
        self.served: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    """As much of a hub's interface as a snapshot download asks for."""

    server: Hub

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        resolve = f"/{MODEL}/resolve/{COMMIT}/"
        headers = {"X-Repo-Commit": COMMIT}
        if path.startswith(resolve) and path.removeprefix(resolve) in self.server.files:
            name = path.removeprefix(resolve)
            content = self.server.files[name]
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
            if body:
                self.server.served.append(name)
        elif path.startswith(f"/api/models/{MODEL}/tree/"):
            content = json.dumps([self.entry(name) for name in self.server.files]).encode()
        elif path.startswith(f"/api/models/{MODEL}"):
            content = json.dumps({"id": MODEL, "sha": COMMIT, "siblings": []}).encode()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def entry(self, name: str) -> dict[str, object]:
        return {"type": "file", "path": name, "size": len(self.server.files[name]), "oid": COMMIT}

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def resolve_elsewhere(cache: Path, model: str = MODEL, *, progress: bool = True, **environment: str) -> tuple[str, str]:
    """Run in a process of its own, because the hub's client reads the environment once: (folder or error, stderr)."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from cosyvoice_core.checkpoint.download import resolve_model\n"
        "from cosyvoice_core.errors import CheckpointError\n"
        "try:\n    print(resolve_model(sys.argv[1], cache=Path(sys.argv[2]), progress=sys.argv[3] == 'True'))\n"
        "except CheckpointError as error:\n    print('CheckpointError:', error)\n"
    )
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    done = subprocess.run(
        [sys.executable, "-c", script, model, str(cache), str(progress)],
        env={**kept, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_an_existing_folder_is_returned_as_it_is(demo_checkpoint: Path, tmp_path: Path) -> None:
    assert resolve_model(str(demo_checkpoint)) == demo_checkpoint
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_folder_goes_before_a_model_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("Someone/Model").mkdir(parents=True)
    assert resolve_model("Someone/Model") == Path("Someone/Model")


IMPOSSIBLE = ["", "nothing", "/no/such/folder", "./a/b", "../a", "a/../b", "a/b/c", "a b/c", "a/b\n", "-a/b", "a--b/c"]
IMPOSSIBLE += [
    "a/.b",
    "https://huggingface.co/a/b",
    "a/" + "b" * 200,
    "файл/b",
    "~no-such-user/b",
    "x" * 5000,
    "a\0b/c",
]


@pytest.mark.parametrize("model", IMPOSSIBLE)
def test_neither_folder_nor_id(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where this runs a folder of such a name may lie.
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(CheckpointError, match="neither an existing folder nor a model id such as FunAudioLLM/"):
        resolve_model(model)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "llm.pt").touch()
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        resolve_model(str(tmp_path / "llm.pt"))


def test_unknown_source() -> None:
    with pytest.raises(CheckpointError, match="'floppy' is not known; use one of huggingface, modelscope"):
        resolve_model("a/b", source="floppy")  # type: ignore[arg-type]


def test_downloads_the_needed_files_once(tmp_path: Path, hub: Hub) -> None:
    folder, shown = resolve_elsewhere(tmp_path, HF_ENDPOINT=hub.address)
    assert Path(folder).is_relative_to(tmp_path)
    assert {name: (Path(folder) / name).read_bytes() for name in FILES} == FILES
    assert sorted(hub.served) == sorted(FILES)
    assert "100%" in shown
    hub.served.clear()
    again, _ = resolve_elsewhere(tmp_path, HF_ENDPOINT=hub.address)
    offline, _ = resolve_elsewhere(tmp_path, HF_HUB_OFFLINE="1")
    assert again == offline == folder
    assert hub.served == []


def test_progress_can_be_switched_off(tmp_path: Path, hub: Hub) -> None:
    folder, shown = resolve_elsewhere(tmp_path, progress=False, HF_ENDPOINT=hub.address)
    assert (Path(folder) / "llm.pt").is_file()
    assert "%" not in shown


def test_a_model_that_lacks_files_is_refused(tmp_path: Path, hub: Hub) -> None:
    del hub.files["flow.pt"]
    printed, _ = resolve_elsewhere(tmp_path, HF_ENDPOINT=hub.address)
    assert "CheckpointError" in printed and "missing: flow.pt" in printed


def test_an_unknown_model_is_refused(tmp_path: Path, hub: Hub) -> None:
    printed, _ = resolve_elsewhere(tmp_path, "Someone/Else", HF_ENDPOINT=hub.address)
    assert "could not be fetched from Hugging Face" in printed


@pytest.mark.parametrize("offline", ["1", "0"])
def test_without_network_the_error_says_what_to_do(tmp_path: Path, offline: str) -> None:
    before, nobody = time.perf_counter(), "http://127.0.0.1:9"
    printed, _ = resolve_elsewhere(tmp_path, OFFICIAL, HF_HUB_OFFLINE=offline, HF_ENDPOINT=nobody)
    assert time.perf_counter() - before < 60
    assert printed.startswith("CheckpointError: there is no folder 'FunAudioLLM/CosyVoice2-0.5B'")
    assert "Without network, copy cosyvoice2.yaml, llm.pt" in printed
    assert "give its path" in printed


class MissingModel(Exception):
    """What the stand-in for ModelScope's client raises."""


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch, demo_checkpoint: Path) -> list[dict[str, object]]:
    """A stand-in for ModelScope's client, which is optional; returns the calls it gets."""
    calls: list[dict[str, object]] = []

    def snapshot_download(model_id: str, **options: object) -> str:
        calls.append({"model_id": model_id, **options})
        if model_id == "iic/CosyVoice2-0.5B":
            return str(demo_checkpoint)
        raise MissingModel("no such model")

    package, hub, errors = ModuleType("modelscope"), ModuleType("modelscope.hub"), ModuleType("modelscope.hub.errors")
    package.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    errors.NotExistError = MissingModel  # type: ignore[attr-defined]
    for module in (package, hub, errors):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return calls


def test_modelscope(modelscope: list[dict[str, object]], demo_checkpoint: Path, tmp_path: Path) -> None:
    assert resolve_model("iic/CosyVoice2-0.5B", source="modelscope", cache=tmp_path) == demo_checkpoint
    assert modelscope == [
        {"model_id": "iic/CosyVoice2-0.5B", "cache_dir": str(tmp_path), "allow_file_pattern": list(FILES)}
    ]


def test_the_site_may_stand_before_the_id(
    modelscope: list[dict[str, object]], demo_checkpoint: Path, tmp_path: Path
) -> None:
    assert resolve_model("modelscope:iic/CosyVoice2-0.5B", cache=tmp_path) == demo_checkpoint
    assert [call["model_id"] for call in modelscope] == ["iic/CosyVoice2-0.5B"]
    with pytest.raises(CheckpointError, match="neither an existing folder nor a model id"):
        resolve_model("elsewhere:iic/CosyVoice2-0.5B")
    assert len(modelscope) == 1


def test_modelscope_failure_is_explained(modelscope: list[dict[str, object]]) -> None:
    with pytest.raises(CheckpointError, match=r"could not be fetched from ModelScope \(no such model\)"):
        resolve_model("iic/Other", source="modelscope")
    assert modelscope[0]["cache_dir"] is None


def test_modelscope_without_its_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(CheckpointError, match=r"pip install 'cosyvoice-serve\[modelscope\]'"):
        resolve_model("iic/CosyVoice2-0.5B", source="modelscope")
