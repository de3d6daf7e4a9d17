"""Runs a job of a workflow as a runner of GitHub Actions does: the scripts for real, the actions by what they do.

What it knows of expressions is what the workflows of this project use: contexts, texts, ==, !=, && and ||, always().
Sources: https://docs.github.com/actions/reference/workflows-and-actions/expressions, and .../workflow-syntax (`shell`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # and the script's file
TOKEN = re.compile(r"\s*('(?:[^']|'')*'|==|!=|&&|\|\||\(|\)|[\w.-]+)")
Context = Mapping[str, Any]


def evaluate(expression: str, context: Context) -> Any:
    """The value of an expression. Raises ValueError for what isn't known here."""
    tokens = TOKEN.findall(expression)
    if TOKEN.sub("", expression).strip():
        raise ValueError(f"{expression}: what is this?")
    value = _either(tokens, context)
    if tokens:
        raise ValueError(f"{expression}: what is {' '.join(tokens)}?")
    return value


def _either(tokens: list[str], context: Context) -> Any:
    value = _both(tokens, context)
    while tokens[:1] == ["||"]:
        tokens.pop(0)
        other = _both(tokens, context)
        value = value or other
    return value


def _both(tokens: list[str], context: Context) -> Any:
    value = _equal(tokens, context)
    while tokens[:1] == ["&&"]:
        tokens.pop(0)
        other = _equal(tokens, context)
        value = value and other
    return value


def _equal(tokens: list[str], context: Context) -> Any:
    value = _single(tokens, context)
    while tokens[:1] in (["=="], ["!="]):
        operator = tokens.pop(0)
        same = str(value).lower() == str(_single(tokens, context)).lower()  # texts are compared without their case
        value = same == (operator == "==")
    return value


def _single(tokens: list[str], context: Context) -> Any:
    token = tokens.pop(0)
    if token.startswith("'"):
        return token[1:-1].replace("''", "'")
    if tokens[:2] == ["(", ")"]:
        del tokens[:2]
        return context["functions"][token]
    value: Any = context
    for name in token.split("."):
        value = value.get(name, "")  # what isn't there is empty
    return value


def filled(text: str, context: Context) -> str:
    """A text with the values of the expressions in it."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(evaluate(found[1], context)), text, flags=re.DOTALL)


@dataclass
class Step:
    """How a step ended, and what it printed."""

    name: str
    outcome: str  # success, failure or skipped
    output: str = ""


@dataclass
class Runner:
    """One machine, in a checkout. `actions`: what stands for an action, by its name; false is a failure."""

    checkout: Path
    home: Path
    env: Mapping[str, str]
    actions: Mapping[str, Callable[[Mapping[str, str]], bool]]
    secrets: Mapping[str, str]
    variables: Mapping[str, str]
    ref: str = "refs/heads/main"
    on_start: Callable[[str, subprocess.Popen[str]], None] = lambda name, process: None  # each script
    steps: list[Step] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.temp = self.home / "runner"
        self.temp.mkdir(parents=True, exist_ok=True)

    def run(self, job: Mapping[str, Any]) -> str:
        """All the steps of a job; returns its conclusion."""
        self.steps.clear()
        if not evaluate(job.get("if", "success()"), self._context({})):
            return "skipped"
        ids: dict[str, dict[str, str]] = {}
        for step in job["steps"]:
            ended = self._step(step, self._context(ids))
            self.steps.append(ended)
            if "id" in step:
                ids[step["id"]] = {"outcome": ended.outcome}
        return "failure" if self._failed else "success"

    @property
    def output(self) -> str:
        """All that was printed."""
        return "".join(step.output for step in self.steps)

    @property
    def outcomes(self) -> dict[str, str]:
        return {step.name: step.outcome for step in self.steps}

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)

    @property
    def _failed(self) -> bool:
        return any(step.outcome == "failure" for step in self.steps)

    def _context(self, ids: Mapping[str, Any]) -> Context:
        return {
            "github": {"ref": self.ref},
            "secrets": self.secrets,
            "vars": self.variables,
            "runner": {"temp": str(self.temp)},
            "steps": ids,
            "functions": {"always": True, "success": not self._failed},
        }

    def _step(self, step: Mapping[str, Any], context: Context) -> Step:
        condition = step.get("if", "success()")
        if "always()" not in condition and "success()" not in condition:
            condition = f"success() && {condition}"
        if not evaluate(condition, context):
            return Step(step["name"], "skipped")
        if "uses" in step:
            given = {name: filled(value, context) for name, value in step.get("with", {}).items()}
            done = self.actions[step["uses"].partition("@")[0]](given)
            return Step(step["name"], "success" if done else "failure")
        script = self.home / "step.sh"
        script.write_text(step["run"], encoding="utf-8")
        env = {name: filled(value, context) for name, value in step.get("env", {}).items()}
        fixed = {"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REF": self.ref, "RUNNER_TEMP": str(self.temp)}
        process = subprocess.Popen(
            [*SHELL, str(script)],
            env={**self.env, **fixed, **env},
            cwd=self.checkout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            self.on_start(step["name"], process)
            output, _ = process.communicate(timeout=240)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.communicate()
        return Step(step["name"], "failure" if process.returncode else "success", output)
