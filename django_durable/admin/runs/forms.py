"""The forms of operations on runs: why, on which step, with which data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...core.functions import registry
from ...core.ids import uuid7
from ...core.values.encoding import from_json
from ...engine.runs.operations import Operation
from ...engine.store import stored_events
from ...engine.store.step_names import title
from ...exceptions import EncodingError
from ...models import Run, Step, StepStatus
from ..shared.payloads import LONG, printable

LONGEST_REASON = 200
MOST_STEPS = 1_000  #: steps offered in a list


class OperationForm(forms.Form):
    """Asks why *operation* is done to *runs*; subclasses ask for its arguments."""

    reason = forms.CharField(label=gettext_lazy("Reason (optional)"), required=False, max_length=LONGEST_REASON)

    def __init__(self, data: Any, operation: Operation, runs: Sequence[Run]) -> None:
        super().__init__(data)
        self.operation = operation
        self.runs = runs
        self.add_fields()
        self.order_fields([name for name in self.fields if name != "reason"] + ["reason"])

    def add_fields(self) -> None:
        """Add the fields that depend on the operation and its runs."""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the operation."""
        return {}

    def details(self) -> str:
        """Return the words that the log keeps besides the reason."""
        return ""

    def clean_data(self) -> Any:
        """Read the tags of recorded values, so that a decimal that the form shows with its tag is a decimal again."""
        try:
            return from_json(self.cleaned_data["data"])
        except EncodingError as error:
            raise ValidationError(str(error)) from None


class CancelForm(OperationForm):
    """Asks for a reason that the run keeps as its error."""

    def arguments(self) -> dict[str, Any]:
        """Return the reason."""
        return {"reason": self.cleaned_data["reason"]}


class ReplayForm(OperationForm):
    """Asks from which step, and with which data, one run is replayed. Several runs are replayed from the start."""

    def add_fields(self) -> None:
        """Offer the steps and the data of one run; ask for a confirmation where a function wants one."""
        if len(self.runs) == 1:
            self.fields["from_step"] = _step_field(_recorded(self.runs[0]), first=("", _("the start")))
            self.fields["from_step"].label = _("From")
            self.fields["data"] = _data_field(_("The event's data"))
            self._show_data(self.runs[0])
        # A page that a double click sends twice replays once.
        self.fields["once"] = forms.UUIDField(required=False, initial=uuid7, widget=forms.HiddenInput)
        if any(_asks_for_confirmation(run) for run in self.runs):
            self.fields["sure"] = forms.BooleanField(label=_("I have checked that a second execution does no harm"))

    def _show_data(self, run: Run) -> None:
        data = stored_events.trigger_of_run(run).data
        if len(json.dumps(data)) <= LONG:
            self.initial["data"] = data
        else:
            self.fields["data"].help_text = _("Too long to be shown: leave it empty to keep it.")

    def arguments(self) -> dict[str, Any]:
        """Return where the replay begins, the data if somebody changed them, and the confirmation."""
        given = self.cleaned_data
        return {
            "from_step": given.get("from_step") or None,
            "data": given.get("data") if "data" in self.changed_data else None,
            "confirmed": given.get("sure", False),
            "once": given["once"],
        }

    def details(self) -> str:
        """Return the step that the replay begins with, and that its data are others."""
        arguments = self.arguments()
        step = _("From step %(step)s.") % {"step": arguments["from_step"]} if arguments["from_step"] else ""
        return f"{step} {_('With other data.') if arguments['data'] is not None else ''}"


class StepForm(OperationForm):
    """Asks which of the steps that wait is meant."""

    def add_fields(self) -> None:
        """Offer the steps that the operation fits."""
        waiting = _recorded(self.runs[0]).filter(status=StepStatus.WAITING, kind__in=self.operation.fits)
        self.fields["step"] = _step_field(waiting)

    def arguments(self) -> dict[str, Any]:
        """Return the step."""
        return {"step": self.cleaned_data["step"]}

    def details(self) -> str:
        """Return the step."""
        return _("Step %(step)s.") % {"step": self.cleaned_data["step"]}


class AnswerForm(StepForm):
    """Asks for a step, and for the answer to it."""

    def add_fields(self) -> None:
        """Offer the steps, and take the data."""
        super().add_fields()
        self.fields["data"] = _data_field(_("The event's or signal's data, or the result of the invoked run"))

    def arguments(self) -> dict[str, Any]:
        """Return the step and the data."""
        return {**super().arguments(), "data": self.cleaned_data["data"]}


_FORMS: Mapping[str, type[OperationForm]] = {"cancel": CancelForm, "replay": ReplayForm, "resolve": AnswerForm}


def form_of(operation: Operation) -> type[OperationForm]:
    """Return the form of an operation."""
    return _FORMS.get(operation.name, StepForm if operation.takes_step else OperationForm)


def _step_field(steps: Any, first: tuple[str, str] | None = None) -> forms.ChoiceField:
    rows = steps.in_order().values_list("name", "ordinal")[:MOST_STEPS]
    names = dict.fromkeys(title(*row) for row in rows)
    choices = [*([first] if first else []), *((name, printable(name)) for name in names)]
    return forms.ChoiceField(label=_("Step"), choices=choices, required=first is None)


class _DataField(forms.JSONField):
    """JSON; text that Python cannot read, for its depth or its digits, is an error of the form too."""

    def to_python(self, value: Any) -> Any:
        """Return the value that the text writes."""
        try:
            return super().to_python(value)
        except (ValueError, RecursionError) as error:
            raise ValidationError(self.error_messages["invalid"], code="invalid", params={"value": ""}) from error

    def bound_data(self, data: Any, initial: Any) -> Any:
        """Return the text or value that the form shows again."""
        try:
            return super().bound_data(data, initial)
        except (ValueError, RecursionError):
            return InvalidJSONInput(data)


def _data_field(label: str) -> forms.JSONField:
    return _DataField(label=label, required=False, help_text=_("JSON"))


def _recorded(run: Run) -> Any:
    return Step.objects.using(run._state.db).filter(run_id=run.id)


def _asks_for_confirmation(run: Run) -> bool:
    function = registry.get(run.function_id)
    return function is not None and function.replay == "confirm"
