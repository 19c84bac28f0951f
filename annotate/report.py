"""Findings for people and for scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .findings import KINDS, Findings

FIRST = 5
_ORDER = {"error": 0, "warning": 1, "info": 2}


def counts(findings: Findings) -> dict[str, int]:
    """``{"error": n, "warning": n, "info": n}``."""
    return {s: sum(f.severity == s for f in findings) for s in _ORDER}


def as_dict(
    path: Path,
    kind: str,
    findings: Findings,
    out: Path | None,
    repairs: list[str] | None,
    remaining: Findings,
) -> dict[str, Any]:
    """Everything, for JSON."""
    document: dict[str, Any] = {
        "path": str(path),
        "format": kind,
        "counts": counts(findings),
        "findings": [f.as_dict() for f in findings],
    }
    if out is not None:
        document["fixed"] = {
            "path": str(out),
            "repairs": repairs,
            "counts": counts(remaining),
            "remaining": [f.as_dict() for f in remaining],
        }
    return document


def _grouped(findings: Findings, limit: int | None) -> list[str]:
    kinds: dict[str, Findings] = {}
    for finding in findings:
        kinds.setdefault(finding.kind, Findings()).append(finding)
    out = []
    for kind, group in sorted(kinds.items(), key=lambda item: (_ORDER[item[1][0].severity], item[0])):
        effect = f": {KINDS[kind][1]}" if kind in KINDS else ""
        out.append(f"{group[0].severity} {kind} ({len(group)}){effect}")
        for finding in group[:limit]:
            place = ": ".join(p for p in (finding.path, finding.where) if p)
            out.append(f"    {place}: {finding.message}")
        if limit is not None and len(group) > limit:
            out.append(f"    and {len(group) - limit} more (--all shows them)")
    return out


def lines(
    path: Path,
    kind: str,
    findings: Findings,
    out: Path | None,
    repairs: list[str] | None,
    remaining: Findings,
    *,
    show_all: bool = False,
) -> list[str]:
    """For people: grouped by kind, errors first."""
    limit = None if show_all else FIRST
    number = counts(findings)
    text = [
        *_grouped(findings, limit),
        f"{path} ({kind}): {number['error']} errors, {number['warning']} warnings, {number['info']} notes",
    ]
    if out is not None and repairs is not None:
        text += [f"repaired: {r}" for r in repairs[: limit or len(repairs)]]
        if limit is not None and len(repairs) > limit:
            text.append(f"repaired: {len(repairs) - limit} more (--all shows them)")
        left = counts(remaining)
        text.append(
            f"{out}: {len(repairs)} repairs; {left['error']} errors and {left['warning']} warnings remain"
        )
    return text
