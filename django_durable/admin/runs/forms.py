"""What staff may say about an action on runs: why, from which step, with which data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core.functions import registry
from ...core.ids import uuid7
from ...core.values.encoding import from_json
from ...engine.store import stored_events
from ...engine.store.step_names import title
from ...exceptions import EncodingError
from ...models import Run, Step, StepKind, StepStatus
from ..shared.payloads import LONG, printable

LONGEST_REASON = 200
MOST_STEPS = 1_000  #: steps offered in a list
_ANSWERED = (StepKind.WAIT, StepKind.SIGNAL, StepKind.INVOKE)


class ActionForm(forms.Form):
    """The reason; subclasses ask for more. *runs* are those that the action is for."""

    reason = forms.CharField(label=gettext_lazy("Reason (optional)"), required=False, max_length=LONGEST_REASON)

    def __init__(self, data: Any, *, runs: Sequence[Run]) -> None:
        super().__init__(data)
        self.ask_about(runs)
        self.order_fields([name for name in self.fields if name != "reason"] + ["reason"])

    def ask_about(self, runs: Sequence[Run]) -> None:
        """Add the fields that depend on the runs."""

    def details(self) -> str:
        """Return what the log keeps besides the reason."""
        return ""

    def clean_data(self) -> Any:
        """Read our tags, so that a decimal which was shown with its tag is a decimal again."""
        try:
            return from_json(self.cleaned_data["data"])
        except EncodingError as error:
            raise ValidationError(str(error)) from None


class ReplayForm(ActionForm):
    """From which step and with which data; of several runs, only whether they are to be replayed."""

    def ask_about(self, runs: Sequence[Run]) -> None:
        """Offer the steps and the data of one run; ask for a confirmation where a function wants one."""
        if len(runs) == 1:
            self.fields["from_step"] = _step_field(_recorded(runs[0]), first=("", _("the start")))
            self.fields["from_step"].label = _("From")
            self.fields["data"] = _data_field(_("The event's data"))
            self._show_data(runs[0])
        # The same page sent twice, by a double click, replays once.
        self.fields["once"] = forms.UUIDField(required=False, initial=uuid7, widget=forms.HiddenInput)
        if any(_asks_for_confirmation(run) for run in runs):
            self.fields["sure"] = forms.BooleanField(label=_("I have checked that a second execution does no harm"))

    def _show_data(self, run: Run) -> None:
        data = stored_events.trigger_of_run(run).data
        if len(json.dumps(data)) <= LONG:
            self.initial["data"] = data
        else:
            self.fields["data"].help_text = _("Too long to be shown: leave it empty to keep it.")

    @property
    def data_to_use(self) -> Any:
        """The data, if somebody changed it, else None."""
        return self.cleaned_data.get("data") if "data" in self.changed_data else None

    def details(self) -> str:
        """Return from which step, and whether with other data."""
        step = self.cleaned_data.get("from_step")
        parts = [_("From step %(step)s.") % {"step": step} if step else ""]
        return " ".join([*parts, _("With other data.") if self.data_to_use is not None else ""])


class WaitForm(ActionForm):
    """Which of the open waits of a run."""

    def ask_about(self, runs: Sequence[Run]) -> None:
        """Offer the steps that wait."""
        self.fields["step"] = _step_field(_waiting(runs[0]))

    def details(self) -> str:
        """Return the step."""
        return _("Step %(step)s.") % {"step": self.cleaned_data["step"]}


class AnswerForm(WaitForm):
    """Which of the open waits, and the answer."""

    def ask_about(self, runs: Sequence[Run]) -> None:
        """Offer the steps that wait, and take the data."""
        super().ask_about(runs)
        self.fields["data"] = _data_field(_("The event's or signal's data, or the result of the invoked run"))


def _step_field(steps: Any, first: tuple[str, str] | None = None) -> forms.ChoiceField:
    rows = steps.in_order().values_list("name", "ordinal")[:MOST_STEPS]
    names = dict.fromkeys(title(*row) for row in rows)
    choices = [*([first] if first else []), *((name, printable(name)) for name in names)]
    return forms.ChoiceField(label=_("Step"), choices=choices, required=first is None)


class _DataField(forms.JSONField):
    """JSON; what Python cannot read, for its depth or its digits, is an error of the form, too."""

    def to_python(self, value: Any) -> Any:
        """Return the value that the text writes."""
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as error:
            raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": ""}) from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return what the form shows again."""
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)


def _data_field(label: str) -> forms.JSONField:
    return _DataField(label=label, required=False, help_text=_("JSON"))


def _recorded(run: Run) -> Any:
    return Step.objects.using(run._state.db).filter(run_id=run.id)


def _waiting(run: Run) -> Any:
    return _recorded(run).filter(status=StepStatus.WAITING, kind__in=_ANSWERED)


def _asks_for_confirmation(run: Run) -> bool:
    function = registry.get(run.function_id)
    return function is not None and function.replay == "confirm"
