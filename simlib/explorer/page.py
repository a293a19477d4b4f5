"""The explorer's page: controls on the left, figures and tables on the right, which follow them."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ipywidgets as widgets

from simlib import api, architectures
from simlib.architectures.parameters import PROFILES
from simlib.errors import BadInput, RunFailed
from simlib.explorer import charts, numbers
from simlib.explorer.controls import STEP, Control, controls
from simlib.figures import style
from simlib.figures.catalogue import LANGUAGES, Language, text, title
from simlib.history import History
from simlib.scenario import scenario_names

_LANGUAGES = {"ru": "Русский", "en": "English"}
_STYLE = """<style>
.simlib-table { border-collapse: collapse; font-size: 13px; line-height: 1.35; }
.simlib-table th, .simlib-table td { padding: 2px 10px 2px 0; text-align: right; border-bottom: 1px solid #e4e4e4; }
.simlib-table th:first-child, .simlib-table td:first-child { text-align: left; }
.simlib-key { margin-right: 18px; white-space: nowrap; font-size: 13px; }
.simlib-key i { display: inline-block; width: 24px; margin-right: 6px; vertical-align: middle; }
.simlib-label { font-size: 12px; line-height: 1.25; }
.simlib-label b { white-space: nowrap; }
.simlib-title { font-size: 20px; font-weight: 600; }
.simlib-caption { font-size: 14px; font-weight: 600; }
.simlib-status { font-size: 13px; color: #555555; }
.simlib-error { font-size: 13px; color: #b00020; font-weight: 600; }
body[data-voila] .jp-MarkdownCell { display: none; }
.simlib-page .bqplot .axislabel { font-size: 12px !important; fill: #333333 !important; }
.simlib-page .bqplot .axis text { fill: #333333; }
.simlib-page .widget-html-content { line-height: 1.3; }
</style>"""


class Handle:
    """A control on the page: its label with the value, and the widget that moves it."""

    def __init__(self, control: Control, language: Language) -> None:
        self.control = control
        self.label = widgets.HTML()
        self.input = _input(control)
        self.box = widgets.VBox([self.label, self.input], layout=_group())
        self.box.add_class(f"simlib-parameter-{control.name}")
        self.write(language)

    @property
    def moved(self) -> bool:
        """Whether it is not at its default."""
        return self.input.value != self.control.start

    @property
    def value(self) -> Any:
        """The parameter's value."""
        return self.control.value(self.input.value)

    def write(self, language: Language) -> None:
        """Write label, value and tooltip."""
        self.input.tooltip = tip = self.control.tooltip(language)
        if self.control.sort == "flag":
            self.input.description, self.input.description_allow_html = self.control.label(language), False
        else:
            self.label.value = _labelled(
                self.control.label(language), self.control.shown(self.control.at(self.input.value), language), tip
            )


class Page:
    """The explorer: `widget` is what is displayed."""

    def __init__(self, architecture: str, scenario: str, language: Language, messages: int, seed: int) -> None:
        self._turn = 0
        self._lock = threading.RLock()
        self._later = ThreadPoolExecutor(1, "explorer")
        self._quiet = False
        self._curve: tuple[Any, list[float], list[Mapping[tuple[str, str], float]]] = (None, [], [])
        self._handles: dict[str, Handle] = {}
        self.architecture = widgets.Dropdown(options=architectures.names(), value=architecture, layout=_wide("230px"))
        self.scenario = widgets.Dropdown(options=scenario_names(), value=scenario, layout=_wide("210px"))
        self.language = widgets.ToggleButtons(options=[(_LANGUAGES[name], name) for name in LANGUAGES], value=language)
        self.language.style.button_width = "84px"
        self._rate: float | None = None
        self.rate = widgets.IntSlider(value=0, min=-100, max=100, readout=False, layout=_wide("100%"))
        self.seed = widgets.BoundedIntText(value=seed, min=0, max=2**31 - 1, layout=_wide("100%"))
        self.messages = widgets.BoundedIntText(value=messages, min=1, max=1_000_000, layout=_wide("100%"))
        self.defaults = widgets.Button(layout=_wide("100%"))
        self.defaults.layout.flex, self.defaults.layout.margin = "0 0 auto", "0 4px 12px 0"
        self._words = {
            name: widgets.HTML()
            for name in ("title", "rate", "seed", "messages", "status", "legend", "percentiles", "counts", *_CAPTIONS)
        }
        self._words["status"].add_class("simlib-said")
        self.messages.add_class("simlib-messages")
        self.response, self.delivery = charts.Distribution("response_time"), charts.Distribution("delivery_time")
        self.loads, self.utilisation = charts.Loads(), charts.Utilisation()
        self._parameters = widgets.VBox(layout=_group())
        self.widget = self._laid_out()
        self._build()
        self.architecture.observe(lambda _: self._choose(self._build), "value")
        self.scenario.observe(lambda _: self._choose(self._follow_scenario), "value")
        self.language.observe(lambda _: self._translate(), "value")
        for each in (self.rate, self.seed, self.messages):
            each.observe(lambda _: self._moved(), "value")
        self.defaults.on_click(lambda _: self._reset())

    @property
    def tongue(self) -> Language:
        """The language that is chosen."""
        chosen: Language = self.language.value
        return chosen

    def case(self) -> api.Case:
        """What is chosen; raises BadInput where the model refuses it."""
        settings = {name: handle.value for name, handle in self._handles.items() if handle.moved}
        return api.case(self.architecture.value, self.scenario.value, settings, self.messages.value, self.offered)

    @property
    def offered(self) -> float | None:
        """The base rate that is chosen; None where the scenario has no other than its own."""
        return None if self._rate is None else self._rate * STEP**self.rate.value

    def _build(self, settings: Mapping[str, Any] | None = None) -> None:
        """Make the controls of the architecture, each at its default but for `settings`."""
        try:
            found = controls(self.architecture.value, settings)
        except BadInput as error:
            return self._refuse(str(error))
        self._handles = {control.name: Handle(control, self.tongue) for control in found}
        for name, handle in self._handles.items():
            handle.input.observe(lambda change, name=name: self._set(name), "value")
        self._parameters.children = [handle.box for handle in self._handles.values()]
        self._follow_scenario()

    def _choose(self, follow: Callable[[], None]) -> None:
        """Another architecture or scenario is chosen, unless only its words changed."""
        if not self._quiet:
            follow()

    def _set(self, name: str) -> None:
        """A control has moved."""
        handle = self._handles[name]
        if self._quiet:
            return
        if name in PROFILES:
            return self._build({name: handle.value})
        self._moved(handle)

    def _reset(self) -> None:
        """Put every control back to its default."""
        self._build()

    def _follow_scenario(self) -> None:
        """Let the rate be the scenario's own."""
        self._rate = numbers.base_rate(self.scenario.value)
        self._quiet = True
        self.rate.disabled, self.rate.value = self._rate is None, 0
        self._quiet = False
        self._translate()

    def _translate(self) -> None:
        """Write every word in the language that is chosen, and show the numbers again."""
        language = self.tongue
        self._quiet = True
        for choice, names in ((self.architecture, architectures.names()), (self.scenario, scenario_names())):
            value = choice.value
            choice.options, choice.value = [(title(name, language).capitalize(), name) for name in names], value
        self._quiet = False
        self.defaults.description = text("defaults", language)
        for name in ("title", *_CAPTIONS):
            self._words[name].value = _spanned(
                text(f"explorer:{name}", language), name if name == "title" else "caption"
            )
        for name in ("seed", "messages"):
            self._words[name].value = _labelled(text(f"explorer:{name}", language))
        self._words["legend"].value = charts.legend(language)
        for handle in self._handles.values():
            handle.write(language)
        for label in (self.response.label, self.delivery.label, self.loads.label, self.utilisation.label):
            label(language)
        self._moved()

    def _moved(self, handle: Handle | None = None) -> None:
        """Show what is chosen at once, or a draft of it; then, from another thread, what takes longer."""
        if self._quiet:
            return
        language, seed = self.tongue, self.seed.value
        with self._lock:
            self._turn += 1
            turn = self._turn
            try:
                case = self.case()
                history = numbers.run(numbers.draft(case), seed)
                self._show(case, seed, numbers.numbers(history))
            except (BadInput, RunFailed) as error:
                return self._refuse(str(error))
            if handle is not None:
                handle.write(language)
            rate = self.offered or case.scenario.rate
            self._words["rate"].value = _labelled(text("rate", language), style.number(float(f"{rate:.3g}"), language))
            self.loads.choose(rate)
        self._later.submit(self._finish, turn, case, seed, history)

    def _finish(self, turn: int, case: api.Case, seed: int, history: History) -> None:
        """Show the whole run, what is counted in it, then latency against load; nothing where something else was chosen
        meanwhile."""
        try:
            if turn == self._turn and history.messages.num_rows < case.messages:
                history = numbers.run(case, seed)
                found = numbers.numbers(history)
                with self._lock:
                    if turn == self._turn:
                        self._show(case, seed, found)
            if turn == self._turn:
                counts = numbers.counts(history)
                with self._lock:
                    if turn == self._turn:
                        self._words["counts"].value = charts.counts(counts, self.tongue)
            self._follow_loads(turn, case, seed)
        except (BadInput, RunFailed) as error:
            if turn == self._turn:
                self._refuse(str(error))

    def _follow_loads(self, turn: int, case: api.Case, seed: int) -> None:
        """Latency against load, point by point; it does not depend on the rate that is chosen."""
        key = (case.architecture, case.parameters.hash(), self.scenario.value, seed)
        known, rates, points = self._curve
        if known != key:
            rates, points = [], []
            cases = numbers.loads(case)
            base = case.scenario.with_rate(1.0).rate if cases else 1.0
            for each, found in numbers.percentiles(cases, seed):
                if turn != self._turn:
                    return
                if found is not None:
                    rates.append(each.scenario.rate / base)
                    points.append(found)
            self._curve = (key, rates, points)
        with self._lock:
            if turn == self._turn:
                self.loads.show(rates, points, self.tongue)

    def _show(self, case: api.Case, seed: int, found: numbers.Numbers) -> None:
        language = self.tongue
        self.response.show(found, language)
        self.delivery.show(found, language)
        self.utilisation.show(found)
        self._words["percentiles"].value = charts.percentiles(found, language)
        messages, hashed = charts.whole(found.messages, language), case.parameters.hash()
        name = "explorer:run" if found.messages == case.messages else "explorer:draft"
        words = text(name, language, messages=messages, seed=seed, parameters=hashed)
        full = f" <b>{html.escape(text('explorer:overloaded', language))}</b>" if found.overloaded else ""
        self._words["status"].value = _spanned(words, "status") + full

    def _refuse(self, words: str) -> None:
        self._words["status"].value = _spanned(" ".join(words.split()), "error")

    def _laid_out(self) -> widgets.Widget:
        words = self._words
        chosen = [(words["rate"], self.rate), (words["seed"], self.seed), (words["messages"], self.messages)]
        left = widgets.VBox(
            [*(widgets.VBox(list(pair), layout=_group()) for pair in chosen),
             self.defaults, self._parameters],
            layout=widgets.Layout(width="300px", flex="0 0 300px", height="870px", overflow="hidden auto", padding="0 12px 0 0"),
        )  # fmt: skip
        figures = [self.response.figure, self.delivery.figure, self.loads.figure, self.utilisation.figure]
        for name, figure in zip(_CAPTIONS, figures, strict=True):
            figure.add_class(f"simlib-{name}")
        grid = widgets.GridBox(
            [widgets.VBox([words[name], figure], layout=widgets.Layout(min_width="0", overflow="hidden"))
                for name, figure in zip(_CAPTIONS, figures, strict=True)],
            layout=widgets.Layout(grid_template_columns="minmax(0, 1fr) minmax(0, 1fr)", grid_gap="4px 20px", width="100%"),
        )  # fmt: skip
        tables = widgets.HBox(
            [words["percentiles"], words["counts"]], layout=widgets.Layout(justify_content="space-around")
        )
        right = widgets.VBox(
            [words["status"], words["legend"], grid, tables], layout=widgets.Layout(flex="1 1 auto", min_width="0")
        )
        head = widgets.HBox(
            [words["title"], self.architecture, self.scenario, self.language],
            layout=widgets.Layout(align_items="center", justify_content="space-between", flex_flow="row wrap"),
        )
        page = widgets.VBox([widgets.HTML(_STYLE), head, widgets.HBox([left, right])])
        page.add_class("simlib-page")
        return page


_CAPTIONS = ("response", "delivery", "loads", "utilisation")
"""The panels."""


def page(
    architecture: str = "rest",
    scenario: str = "steady",
    language: Language = "en",
    messages: int = 20_000,
    seed: int = 1,
) -> widgets.Widget:
    """The explorer, to be displayed."""
    return Page(architecture, scenario, language, messages, seed).widget


def _input(control: Control) -> Any:
    layout = _wide("100%")
    if control.sort == "flag":
        return widgets.Checkbox(value=control.start, indent=False, layout=layout)
    if control.sort == "choice":
        return widgets.Dropdown(options=control.choices, value=control.start, layout=layout)
    return widgets.IntSlider(value=control.start, min=control.low, max=control.high, readout=False, layout=layout)


def _wide(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, margin="0 4px 0 0")


def _group() -> widgets.Layout:
    return widgets.Layout(margin="0 0 6px 0", overflow="hidden", flex="0 0 auto")


def _labelled(words: str, value: str = "", tip: str = "") -> str:
    shown = f": <b>{html.escape(value)}</b>" if value else ""
    return f'<div class="simlib-label" title="{html.escape(tip)}">{html.escape(words)}{shown}</div>'


def _spanned(words: str, name: str) -> str:
    return f'<span class="simlib-{name}">{html.escape(words)}</span>'
