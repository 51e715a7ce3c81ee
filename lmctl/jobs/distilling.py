"""`lmctl distill`: train a student with its teacher and without, and report how much of the gap was closed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from lmctl.config.saved import recorded_config
from lmctl.core.command_words import command
from lmctl.core.files import write_json
from lmctl.core.paths import Paths
from lmctl.core.run_summary import RunSummary
from lmctl.jobs.baseline import train_baseline
from lmctl.jobs.training import Training, train
from lmctl.plan import teachers_in


def distill(student: Training) -> dict[str, Any]:
    """Train the student, and its baseline unless that is switched off or exists; evaluate the teacher and compare all
    three. Returns the student's summary, as in its summary.json; {} if there is nothing to compare."""
    from lmctl.parallel.launch import is_first, is_launched, others

    train(student)
    if student.plan.teacher_cache == "build":  # the teacher's logits were cached, and nothing was trained
        return {}
    if others():
        if is_first() and not is_launched():
            again = command("lmctl distill resume=auto", run_dir=student.paths.root)
            print(f"control and comparison are for a single process: {again}", flush=True)
        return {}
    baseline = train_baseline(student.composed) if student.plan.distill.control else None
    return compare(student, baseline)


def compare(student: Training, baseline: Paths | None) -> dict[str, Any]:
    """Evaluate the teacher on the student's held-out rows, measure the speed of both; add this to the student's summary
    and print it. `baseline` is the run of the same student without a teacher, if there is one."""
    from lmctl.distill.report import measure_gap, sentences
    from lmctl.train.display import Display, quiet_libraries
    from lmctl.train.prepare import prepare

    quiet_libraries()
    paths, display = student.paths, Display()
    taught = recorded_config(paths).teacher  # the checkpoint that was the teacher, if its run has continued since
    plan = replace(student.plan, teacher=teachers_in(taught))
    texts = prepare(plan.tokenizer, plan.mix, plan.cache_dir, lambda line: None)
    alone = None if baseline is None else {**RunSummary.of(baseline).written, "run_dir": str(baseline.root)}
    summary = dict(RunSummary.of(paths).written)
    summary |= measure_gap(plan, texts, paths, summary, alone)
    write_json(paths.summary, summary)
    for line in sentences(summary):
        display.say(line)
    return summary
