"""Bundles on the Hugging Face hub, whose client has a local stand-in here: no test asks the network."""

from __future__ import annotations

import fnmatch
import pickle
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ranged import DATA, DYNAMIC, NETWORK, make_ranged

import rlprune
from rlprune.errors import BundleError, HubError, MissingExtraError
from rlprune.models import hub
from rlprune.models.hub import HubName

client = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Repositories as folders, and what was asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None

    def snapshot_download(self, repo_id: str, *, revision: str | None = None, allow_patterns: Any = None) -> str:
        self.asked.append({"repo_id": repo_id, "revision": revision, "files": allow_patterns})
        if self.error is not None:
            raise self.error
        source, to = self.root / repo_id, self.root / "cache" / repo_id / "snapshots" / COMMIT
        for path in source.rglob("*"):
            name = path.relative_to(source).as_posix()
            if path.is_file() and any(fnmatch.fnmatch(name, pattern) for pattern in allow_patterns):
                (to / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, to / name)
        return str(to)

    def create_repo(self, repo_id: str, **how: Any) -> SimpleNamespace:
        self.asked.append({"created": repo_id, **how})
        if self.error is not None:
            raise self.error
        return SimpleNamespace(repo_id=repo_id if "/" in repo_id else f"me/{repo_id}")

    def upload_folder(self, *, repo_id: str, folder_path: Any, **how: Any) -> str:
        self.asked.append({"uploaded": repo_id, **how})
        shutil.copytree(folder_path, self.root / repo_id)
        return f"https://huggingface.co/{repo_id}/commit/{COMMIT}"

    def files(self, repo_id: str) -> set[str]:
        folder = self.root / repo_id
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def repos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(client, "snapshot_download", made.snapshot_download)
    monkeypatch.setattr(client.HfApi, "create_repo", lambda _, *given, **how: made.create_repo(*given, **how))
    monkeypatch.setattr(client.HfApi, "upload_folder", lambda _, **how: made.upload_folder(**how))
    monkeypatch.setattr(hub, "answers", lambda _: True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rlprune.save_bundle(tmp_path / "bundle", NETWORK, make_ranged(), DATA, {"model": "small"}, {"extra.bin": b"listed"})
    return tmp_path / "bundle"


def same(model: rlprune.DynamicCNN) -> bool:
    expected = rlprune.DynamicCNN(NETWORK, make_ranged(), DATA.mean, DATA.std, DATA.classes)(DATA.images)
    return torch.allclose(model(DATA.images).probabilities, expected.probabilities, atol=1e-6)


def test_what_is_pushed_is_loaded_by_its_name(repos: Hub, folder: Path) -> None:
    (folder / "evil.pkl").write_bytes(pickle.dumps("nothing good"))
    address = rlprune.push_to_hub(folder, "org/name", private=True, token="t", commit_message="First")
    assert address == f"https://huggingface.co/org/name/commit/{COMMIT}"
    created, uploaded = repos.asked
    assert created == {"created": "org/name", "private": True, "exist_ok": True}
    assert uploaded["commit_message"] == "First" and uploaded["repo_type"] == "model"
    listed = {"network.json", "network.safetensors", "policy.json", "policy.safetensors", "extra.bin"}
    assert repos.files("org/name") == listed | {"manifest.json", "manifest.sha256", "README.md"}
    model = rlprune.load("org/name")
    assert same(model) and model.metadata == {"model": "small"}


def test_only_listed_files_are_downloaded_all_of_one_commit(repos: Hub, folder: Path) -> None:
    rlprune.push_to_hub(folder, "org/name")
    (repos.root / "org/name/model.pkl").write_bytes(b"x")
    (repos.root / "org/name/bundle").mkdir()
    repos.asked.clear()
    assert same(rlprune.load("org/name@v1.0", max_batch=3))
    first, second = repos.asked
    assert (first["revision"], second["revision"]) == ("v1.0", COMMIT)
    assert first["files"] == [f"{at}manifest.{kind}" for at in ("", "bundle/") for kind in ("json", "sha256")]
    downloaded = repos.files("cache/org/name")
    assert {name.rpartition("/")[2] for name in downloaded} == {*second["files"]}
    assert "model.pkl" not in second["files"] and "README.md" not in second["files"]


def test_a_deploy_folder_is_pushed_as_it_is_with_its_card(repos: Hub, folder: Path, tmp_path: Path) -> None:
    deploy = tmp_path / "deploy"
    deploy.mkdir()
    folder.rename(deploy / "bundle")
    (deploy / "bundle" / "unlisted.txt").write_text("x")
    (deploy / "labels.txt").write_text("a\n")
    (deploy / ".hidden").write_text("x")
    (deploy / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n\nText\n")
    rlprune.push_to_hub(deploy, "org/name")
    assert {"labels.txt", "README.md", "bundle/manifest.json", "bundle/extra.bin"} <= repos.files("org/name")
    assert not {".hidden", "bundle/unlisted.txt"} & repos.files("org/name")
    card = client.ModelCard((repos.root / "org/name/README.md").read_text())
    assert (card.data.license, card.data.library_name, card.text.strip()) == ("mit", "rlprune", "# Mine\n\nText")
    assert same(rlprune.load("org/name")) and same(rlprune.load(deploy))


def test_a_model_has_the_methods_of_the_hubs_own(repos: Hub, tmp_path: Path) -> None:
    DYNAMIC.save_pretrained(tmp_path / "saved", metadata={"by": "hand"})
    saved = rlprune.DynamicCNN.from_pretrained(tmp_path / "saved")
    assert saved.metadata == {"by": "hand"} and torch.equal(saved(DATA.images).labels, DYNAMIC(DATA.images).labels)
    assert saved.push_to_hub("name", branch="dev", create_pr=True).startswith("https://huggingface.co/me/name/commit")
    assert (repos.asked[-1]["revision"], repos.asked[-1]["create_pr"]) == ("dev", True)
    again = rlprune.DynamicCNN.from_pretrained("me/name", revision="dev", max_batch=2)
    assert repos.asked[-2]["revision"] == "dev" and again.max_batch == 2 and again.metadata == {"by": "hand"}
    card = client.ModelCard((repos.root / "me/name/README.md").read_text())
    assert card.data.library_name == "rlprune" and card.data.pipeline_tag == "image-classification"
    assert 'rlprune.load("name")' in card.text


def test_a_folder_that_is_there_goes_first(repos: Hub, folder: Path) -> None:
    Path("org").mkdir()
    folder.rename("org/name")
    assert same(rlprune.load("org/name")) and repos.asked == []
    (Path("org/name") / "network.json").write_text("{}")
    with pytest.raises(BundleError, match=r"org/name/network\.json has been altered"):
        rlprune.load("org/name")
    for name in ("nowhere", "./a/b", "/a/b", "a/b/c", "a/b/", "../a/b", "org/name@", Path("nowhere")):
        with pytest.raises(BundleError, match=r"manifest\.json cannot be read"):
            rlprune.load(name)
    assert repos.asked == []


@pytest.mark.parametrize("name", ["manifest.json", "network.json", "network.safetensors", "policy.json", "extra.bin"])
def test_what_comes_from_the_hub_is_checked_like_any_folder(repos: Hub, folder: Path, name: str) -> None:
    rlprune.push_to_hub(folder, "org/name")
    path = repos.root / "org/name" / name
    path.write_bytes(path.read_bytes().replace(b"e", b"a", 1) + b" ")
    with pytest.raises(BundleError, match=rf"{name} has been altered"):
        rlprune.load("org/name")


def test_what_is_broken_is_not_pushed(repos: Hub, folder: Path, tmp_path: Path) -> None:
    (folder / "policy.safetensors").write_bytes(b"x")
    for source, message in ((folder, "has been altered"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(BundleError, match=message):
            rlprune.push_to_hub(source, "org/name")
    assert repos.asked == []


def test_a_repository_that_holds_something_else_is_told(repos: Hub, folder: Path) -> None:
    (repos.root / "org/name").mkdir(parents=True)
    (repos.root / "org/name/config.json").write_text("{}")
    with pytest.raises(
        HubError, match=r"^org/name is on the Hugging Face hub, and no bundle of rlprune: it has no man"
    ):
        rlprune.load("org/name")


def failure(name: str) -> Exception:
    """An error as the client raises it."""
    kind = getattr(errors, name)
    if issubclass(kind, errors.HfHubHTTPError):
        response: Any = SimpleNamespace(headers={}, request=None)
        return kind("403 Forbidden\nsecond line", response=response)  # type: ignore[no-any-return]
    return kind("what it says\nsecond line")  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", r"^org/name is gated: ask for access on https://huggingface\.co/org/name, then run hf auth"),
        ("RepositoryNotFoundError", "^org/name is no folder here, and the Hugging Face hub has no such repository"),
        ("RevisionNotFoundError", "^org/name has no revision 'v9' on the Hugging Face hub; name a branch"),
        ("LocalEntryNotFoundError", "^org/name is no folder here, and the Hugging Face hub cannot be reached"),
        ("OfflineModeIsEnabled", "^org/name is no folder here, and the Hugging Face hub cannot be reached"),
        ("HFValidationError", "^org/name is no name of a repository of the Hugging Face hub: what it says$"),
        ("HfHubHTTPError", r"^org/name: the Hugging Face hub does not do it \(HfHubHTTPError: 403 Forbidden\)$"),
    ],
)
def test_what_the_hub_does_not_give_is_said_in_a_line(repos: Hub, folder: Path, error: str, message: str) -> None:
    repos.error = failure(error)
    with pytest.raises(HubError, match=message) as caught:
        rlprune.load("org/name@v9")
    assert isinstance(caught.value, BundleError) and "\n" not in str(caught.value)
    if error == "HfHubHTTPError":
        with pytest.raises(HubError, match=message):
            rlprune.push_to_hub(folder, "org/name")


def test_without_the_client_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        HubError, match=r"^org/name is no folder here; to look .* install it with: pip install 'rlprune"
    ):
        rlprune.load("org/name")
    with pytest.raises(MissingExtraError, match=r"'huggingface_hub'.*'rlprune\[hub\]'"):
        rlprune.push_to_hub(folder, "org/name")


def test_a_card_with_malformed_metadata_is_not_pushed(repos: Hub, folder: Path) -> None:
    (folder / "README.md").write_text("---\na: [\n---\ntext")
    with pytest.raises(HubError, match=r"metadata at the beginning of README\.md are malformed: "):
        rlprune.push_to_hub(folder, "org/name")
    (folder / "README.md").write_text("No metadata.\n")
    rlprune.push_to_hub(folder, "org/name")
    assert (repos.root / "org/name/README.md").read_text().startswith("---\nlibrary_name: rlprune\n")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("org/name", HubName("org/name")),
        ("org/na-me_1.0@refs/pr/1", HubName("org/na-me_1.0", "refs/pr/1")),
        (Path("org/name"), HubName("org/name")),
        ("org", None),
        ("org/name@", None),
        ("org/na me", None),
        ("~/name", None),
        ("org/../name", None),
        ("", None),
    ],
)
def test_names_that_look_like_the_hubs(name: str | Path, expected: HubName | None) -> None:
    found = HubName.of(name)
    assert found == expected and (found is None or str(found) == str(name))
