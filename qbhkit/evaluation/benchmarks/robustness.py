"""The table of what was attacked by ``qbhkit bench fuzz``, ``faults``, ``service`` and ``mutants``.

What was found and mended is written into data/results/robustness.json by hand.
"""

from typing import Any


def table(result: dict[str, Any]) -> str:
    """Return the table in Markdown."""
    readers, works = result["files"]["readers"].values(), result["faults"]["works"]
    held, mutants = result["service"], result["mutants"]
    inputs, guided, refused = (
        sum(reader[key] for reader in readers) for key in ("inputs", "guided", "refused")
    )
    slowest_s, peak_mb = (max(of[key] for of in readers) for key in ("slowest_s", "peak_mb"))
    kills = sum(work["kills"] for work in works.values())
    filled = ", ".join(name for name, work in works.items() if "full_disk" in work)
    first, last = (round(held["memory_mb"][f"{when}_minute"]) for when in ("first", "last"))
    rows = [
        ("attack", "how much", "what happened"),
        ("damaged files",
         f"{inputs:,} for {len(readers)} readers, {guided:,} of them guided by the lines they "
         "reach",
         f"{refused:,} refused in one sentence, the others read; at most {slowest_s:.1f} s and "
         f"{peak_mb:,} MB"),
        ("SIGKILL at random moments", f"{kills} kills of {', '.join(works)}",
         "each went on, and ended as if undisturbed"),
        ("a full disk", f"under {filled}", "one sentence; with room again, as if undisturbed"),
        (f"{held['clients']} clients of the HTTP service for {held['seconds']:.0f} s, and others "
         "that drip, leave or send too much",
         f"{held['answers']:,} answers, {held['refused']:,} sent away",
         f"{held['wrong']} wrong; sent away in {held['refusal_ms']['p95']:.0f} ms (p95); memory "
         f"{first} MB in the first minute, {last} MB in the last"),
        (f"one operator or number changed in the code, {mutants['mutants']} times",
         f"in {len(mutants['modules'])} modules",
         f"a test noticed {mutants['killed']}; why the others may live stands in "
         "`qbhkit/evaluation/benchmarks/survivors.yaml`"),
    ]  # fmt: skip
    head, *lines = (f"| {' | '.join(row)} |" for row in rows)
    found = ["", "Found and mended:", "", *(f"- {it}" for it in result["found"])]
    return "\n".join([head, "|---|---|---|", *lines, *found])
