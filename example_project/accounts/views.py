"""The home page: sign up, and watch the runs."""

from __future__ import annotations

import inspect

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

import django_durable as durable
from django_durable.models import Run

from .durable import activation_email
from .forms import SignUpForm


@require_http_methods(["GET", "HEAD", "POST"])
def home(request: HttpRequest) -> HttpResponse:
    """Show the sign-up form and the newest runs; sign up a new user."""
    form = SignUpForm(request.POST or None)
    if form.is_valid():
        user = sign_up(form.cleaned_data["email"])
        messages.success(request, f"{user.email} has signed up. The welcome e-mail appears on the console.")
        return redirect("home")
    context = {
        "form": form,
        "runs": newest_runs(),
        "wait": settings.ACTIVATION_WAIT,
        "source": inspect.getsource(activation_email.handler),
    }
    return render(request, "accounts/home.html", context)


@transaction.atomic
def sign_up(email: str) -> User:
    """Create the user and send ``app/user.created``: the database has both, or neither."""
    user = User.objects.create_user(username=email, email=email)
    durable.send_event("app/user.created", {"user": {"id": user.pk}}, user={"id": user.pk, "email": user.email})
    return user


@require_safe
def runs(request: HttpRequest) -> HttpResponse:
    """Show the newest runs alone, for the script that keeps the home page current."""
    return render(request, "accounts/runs.html", {"runs": newest_runs()})


def newest_runs() -> QuerySet[Run]:
    """Return the ten newest runs."""
    return Run.objects.select_related("event").order_by("-id")[:10]
