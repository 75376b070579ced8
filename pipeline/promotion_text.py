"""A decision of `cxr promote` for people: on the terminal, and as Markdown beside its record."""

from typing import Any

_HEAD = ("check", "candidate", "champion", "difference (interval)", "condition", "result")
_UNSHOWN = "not shown: the value is within the margin, the lower bound of its interval is not."


def to_text(record: dict[str, Any]) -> str:
    """Return the decision as lines for a terminal: the comparison, its checks in columns, and the outcome last."""
    rows = _rows(record["checks"])
    lines = [_what(record)]
    if rows:
        table = [_HEAD, *rows]
        widths = [max(len(row[k]) for row in table) for k in range(len(_HEAD))]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
    if any("not shown" in row[-1] for row in rows):
        lines.append(_UNSHOWN)
    return "\n".join([*lines, f"{record['outcome']}: {record['reason']}"])


def to_markdown(record: dict[str, Any]) -> str:
    """Return the whole record as Markdown."""
    registry = record["registry"]
    alias = f"the alias was at {_version(registry['before'])} and is at {_version(registry['after'])}"
    lines = [
        f"# Decision {record['number']:04d}: {record['outcome']}",
        "",
        f"{record['reason']}",
        "",
        _what(record),
        "",
        f"- Time: {record['time']}",
        f"- Registry: model {registry['model']}, alias {registry['alias']}, in {registry['address']}; {alias}",
        f"- Code: {record['code_version']}; {_pairs(record['versions'])}",
    ]
    if record["rule"]:
        lines.append(f"- Rule: {_pairs(record['rule']['promote'])}; bootstrap: {_pairs(record['rule']['evaluate'])}")
    lines += [f"- {who.capitalize()}: {_pairs(record[who])}" for who in ("candidate", "champion") if record[who]]
    lines.append(f"- Record before this one, SHA-256: {record['previous_record_sha256'] or 'none'}")
    if rows := _rows(record["checks"]):
        lines += ["", "| " + " | ".join((*_HEAD, "counts")) + " |", "| --- " * (len(_HEAD) + 1) + "|"]
        counts = (_pairs(check["counts"]) for check in record["checks"])
        lines += ["| " + " | ".join((*row, count)) + " |" for row, count in zip(rows, counts, strict=True)]
        lines += ["", f"{_UNSHOWN[0].upper()}{_UNSHOWN[1:]} docs/promotion.md explains the rule."]
    return "\n".join(lines) + "\n"


def _what(record: dict[str, Any]) -> str:
    registry, test = record["registry"], record["test"]
    if record["outcome"] == "undone":
        return f"undo of decision {record['undoes']:04d}, which made version {registry['version']} champion"
    against = "the champion itself" if registry["before"] == registry["version"] else _version(registry["before"])
    against = f"against {against}" if registry["before"] else "with no champion to compare with"
    images = f"{test['images']} test images of {test['patients']} patients"
    return f"version {registry['version']} {against}, {images} (earlier decisions on them: {test['earlier_decisions']})"


def _rows(checks: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (
            check["name"] if check["kind"] in ("macro", "calibration") else f"{check['kind']} {check['name']}",
            _figure(check["candidate"]),
            _figure(check["champion"]),
            _difference(check),
            _condition(check),
            _result(check),
        )
        for check in checks
    ]


def _difference(check: dict[str, Any]) -> str:
    low, high = check["ci_low"], check["ci_high"]
    interval = "" if _absent(low) else f" ({low:+.4f} to {high:+.4f})"
    if check["kind"] == "calibration":
        return f"interval {low:.4f} to {high:.4f}" if interval else ""
    return "" if _absent(check["difference"]) else f"{check['difference']:+.4f}{interval}"


def _condition(check: dict[str, Any]) -> str:
    limit = check["limit"]
    return {"macro": f"lower bound > -{limit:g}", "calibration": f"at most {limit:g}"}.get(
        check["kind"], f"not below -{limit:g}"
    )


def _result(check: dict[str, Any]) -> str:
    if check["outcome"] == "not compared":
        return f"not compared: {check['reason']}"
    unshown = check["outcome"] == "pass" and check["non_inferior"] is False
    return f"{check['outcome']}{', not shown' if unshown else ''}"


def _version(version: str | None) -> str:
    return f"version {version}" if version else "no version"


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def _figure(value: float | None) -> str:
    return "" if _absent(value) else f"{value:.4f}"


def _absent(value: float | None) -> bool:
    return value is None or value != value
