"""The table of what was attacked by ``qbhkit bench fuzz``, ``faults``, ``service`` and ``mutants``.

What was found and mended is written into data/results/robustness.json by hand.
"""

from typing import Any


def table(result: dict[str, Any]) -> str:
    """Return the table in Markdown; what was not run has no row."""
    rows = []
    if "files" in result:
        readers = result["files"]["readers"].values()
        inputs, guided, refused = (
            sum(reader[key] for reader in readers) for key in ("inputs", "guided", "refused")
        )
        slowest_s, peak_mb = (max(of[key] for of in readers) for key in ("slowest_s", "peak_mb"))
        rows.append(
            f"| damaged files | {inputs:,} for {len(readers)} readers, {guided:,} of them guided "
            f"by the lines they reach | {refused:,} refused in one sentence, the others read; at "
            f"most {slowest_s:.1f} s and {peak_mb:,} MB |"
        )
    if "faults" in result:
        works = result["faults"]["works"]
        kills = sum(work["kills"] for work in works.values())
        rows.append(
            f"| SIGKILL at random moments | {kills} kills of {', '.join(works)} | each went on, "
            "and ended as if undisturbed |"
        )
        if full := [name for name, work in works.items() if "full_disk" in work]:
            rows.append(
                f"| a full disk | under {', '.join(full)} | one sentence; with room again, as if "
                "undisturbed |"
            )
    if "service" in result:
        held = result["service"]
        memory = held["memory_mb"]
        rows.append(
            f"| {held['clients']} clients of the HTTP service for {held['seconds']:.0f} s, and "
            f"others that drip, leave or send too much | {held['answers']:,} answers, "
            f"{held['refused']:,} sent away | {held['wrong']} wrong; sent away in "
            f"{held['refusal_ms']['p95']:.0f} ms (p95); memory {memory['first_minute']:.0f} MB in "
            f"the first minute, {memory['last_minute']:.0f} MB in the last |"
        )
    if "mutants" in result:
        held = result["mutants"]
        rows.append(
            f"| one operator or number changed in the code, {held['mutants']} times | in "
            f"{len(held['modules'])} modules | a test noticed {held['killed']}; why the others "
            "may live stands in `qbhkit/evaluation/benchmarks/survivors.yaml` |"
        )
    head = ["| attack | how much | what happened |", "|---|---|---|", *rows, ""] if rows else []
    return "\n".join([*head, "Found and mended:", "", *(f"- {it}" for it in result["found"])])
