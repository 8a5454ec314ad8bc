"""What runs Permafrost elsewhere: no rights, nothing writable but volumes, the same port and paths everywhere."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

DEPLOY = Path(__file__).resolve().parents[1] / "scripts" / "deploy"


def test_the_image_runs_without_rights_and_copies_what_the_wheel_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.findall(r"^FROM \S+ AS (\w+)$", text, re.M) == ["build", "cpu", "gpu"]
    assert re.search(r"^USER 10001$", text, re.M)
    assert "HEALTHCHECK" in text
    assert "--api-key-file" in text
    copied = set(" ".join(re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M)).split())
    assert copied >= {"embedder", "index", "heads", "api", "permafrost.py", "pyproject.toml", "LICENSE", "README.md"}
    assert all((DEPLOY.parents[1] / name).exists() for name in copied)


def test_the_compose_file_takes_everything_away_that_is_not_needed() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["permafrost"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["ports"] == ["127.0.0.1:8765:8765"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_unit_is_closed_and_knows_how_the_service_ends() -> None:
    lines = (DEPLOY / "permafrost.service").read_text().splitlines()
    for line in ("DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "SuccessExitStatus=143"):
        assert line in lines
