import hashlib
import io
from pathlib import Path
from urllib.error import URLError

import huggingface_hub
import pytest
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from curate.errors import WeightsError
from curate.models.files import weights
from curate.models.files.weights import HubFile, cached_download, download, locate

URL = "https://weights.example/dir/model.pt?v=1"
CONTENT = b"weights" * 1000
HUB = HubFile("owner/repo", ("model.safetensors", "pytorch_model.bin"))


class Web:
    """Stands in for the network; counts requests."""

    def __init__(self, error: Exception | None = None) -> None:
        self.requests: list[str] = []
        self.error = error

    def __call__(self, url: str, timeout: float) -> io.BytesIO:
        self.requests.append(url)
        if self.error:
            raise self.error
        return io.BytesIO(CONTENT)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Web:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    found = Web()
    monkeypatch.setattr(weights.urllib.request, "urlopen", found)
    return found


def test_a_url_is_fetched_once(web: Web) -> None:
    assert cached_download(URL) is None
    path = download(URL)
    assert path.read_bytes() == CONTENT
    assert download(URL) == cached_download(URL) == path
    assert len(web.requests) == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_pin_accepts_only_its_content(web: Web) -> None:
    right = hashlib.sha256(CONTENT).hexdigest()
    assert download(f"{URL}#sha256={right}").read_bytes() == CONTENT
    assert web.requests == [URL]
    with pytest.raises(WeightsError, match=f"content has sha256 {right}, pinned is 00"):
        download(f"{URL}#sha256=00")
    assert cached_download(f"{URL}#sha256=00") is None


def test_refused_downloads_leave_nothing(web: Web, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="larger than 1000 bytes; this is no weight file"):
        download(URL, max_bytes=1000)
    with pytest.raises(WeightsError, match="only https URLs and local paths are weights"):
        download("http://weights.example/model.pt")
    web.error = URLError("no route to host")
    with pytest.raises(WeightsError, match=r"download failed \(.*no route.*\); fetch it by hand"):
        download(URL)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_url_is_fetched_only_when_asked(web: Web) -> None:
    found = {fetch: locate(URL, None, model="m", fetch=fetch, howto="") for fetch in (False, True)}
    assert found[False] is None
    assert found[True] is not None
    assert len(web.requests) == 1


def test_a_missing_path_says_what_else_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"m: .*gone.pt: no such weight file; correct `weights`, or dance"):
        locate(str(tmp_path / "gone.pt"), HUB, model="m", fetch=False, howto="dance")


def test_the_hub_is_asked_only_to_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: None)

    def fetch(repo: str, name: str, **_: object) -> str:
        asked.append(name)
        if name == "model.safetensors":
            raise EntryNotFoundError("no such file in the repository")
        return str(tmp_path / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    assert locate(None, HUB, model="m", fetch=False, howto="") is None
    assert asked == []
    assert locate(None, HUB, model="m", fetch=True, howto="") == tmp_path / "pytorch_model.bin"


def test_the_cache_of_the_hub_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    held = {"pytorch_model.bin": str(tmp_path / "held.bin")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: held.get(name))
    assert locate(None, HUB, model="m", fetch=False, howto="") == tmp_path / "held.bin"
    assert locate(None, HUB, model="m", fetch=True, howto="") == tmp_path / "held.bin"


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("check your connection"), OSError("check the wire")])
def test_an_unreachable_hub_says_what_to_do(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(WeightsError, match=r"m: its weights .* owner/repo did not give them \(check.*\); dance"):
        locate(None, HUB, model="m", fetch=True, howto="dance")
