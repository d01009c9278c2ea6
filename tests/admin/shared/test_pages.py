"""What holds for every page: read-only, clean of scripts, escaped, and on any admin site."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import include, path, reverse

from django_durable.admin import register
from django_durable.core import clock
from django_durable.models import Event, Function, MatchFailure, Run, Wait
from tests.admin.conftest import Staff
from tests.admin.rows import error_text, make_attempt, make_event, make_function, make_run, make_step, make_wait

pytestmark = pytest.mark.django_db

MODELS = (Function, Run, Event, Wait)
EVIL = "</script><img src=x onerror=alert(1)>\"'"
NASTY = f"{EVIL} nul \x00 half \ud800 turn \u202e"
PAYLOAD = '{"a": "</script><img src=x onerror=alert(1)>", "b": "nul \\u0000 half \\ud800"}'

operations = admin.AdminSite(name="operations")
register(operations)
urlpatterns = [path("operations/", operations.urls), path("", include("tests.urls"))]


@pytest.fixture
def rows() -> list[Any]:
    """One row of each model, with hostile text in every field that takes text."""
    function = make_function("shop/evil", config={"triggers": [{"event": EVIL, "if": EVIL}], "place": EVIL})
    event = make_event(EVIL, data={EVIL: EVIL}, user={"name": EVIL}, v=EVIL)
    texts = {"waiting_for": EVIL, "owner": EVIL, "held_by": EVIL, "queue": EVIL, "code_version": EVIL}
    run = make_run(
        function.id, status="queued", event=event, output=PAYLOAD, error=error_text(EVIL, NASTY, NASTY), **texts
    )
    make_step(run, EVIL, 1, branch=EVIL, input=EVIL, output=PAYLOAD, event=event)
    make_step(run, EVIL, 2, status="failed", error=error_text(EVIL, NASTY, NASTY))
    make_attempt(run, EVIL, owner=EVIL, output="no JSON " + EVIL, error=EVIL)
    MatchFailure.objects.create(event=event, run=run, expression=EVIL, reason=EVIL, created_at=clock.now())
    return [function, run, event, make_wait(run, EVIL, match=EVIL, expression=EVIL)]


def addresses(row: Any, site: str = "admin") -> list[str]:
    name = f"admin:django_durable_{row._meta.model_name}"
    return [
        reverse(f"{name}_changelist", current_app=site),
        reverse(f"{name}_change", args=[admin.utils.quote(str(row.pk))], current_app=site),
    ]


class Tags(HTMLParser):
    """Collects the tags of a page with their attributes."""

    def __init__(self, html: str) -> None:
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        super().__init__()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_hostile_text_is_shown_and_does_nothing(admin_client: Client, rows: list[Any]) -> None:
    for row in rows:
        for address in addresses(row):
            html = admin_client.get(address).text
            assert "<img src=x" not in html
            assert "&lt;img src=x" in html or address.endswith("/function/")


def test_what_no_page_takes_is_shown_as_escapes(admin_client: Client, rows: list[Any]) -> None:
    html = admin_client.get(addresses(rows[1])[1]).text

    assert "nul \\x00 half \\ud800 turn \\u202e" in html
    assert "\x00" not in html


def test_no_page_needs_inline_script_or_style(admin_client: Client, rows: list[Any]) -> None:
    pages = [
        *(address for row in rows for address in addresses(row)),
        reverse("admin:django_durable_run_cancel", args=[rows[1].pk]),
    ]
    for address in pages:
        for tag, attributes in Tags(admin_client.get(address).text).tags:
            assert "style" not in attributes, (address, tag)
            assert not [name for name in attributes if name.startswith("on")], (address, tag)
            assert tag != "style", address
            assert tag != "script" or "src" in attributes or attributes.get("type") == "application/json", address


def test_every_table_has_a_caption_and_scopes(admin_client: Client, rows: list[Any]) -> None:
    for row in rows:
        html = admin_client.get(addresses(row)[1]).text
        assert html.count("<table") == html.count("<caption")
        assert re.findall(r"<th(?! scope=)[^e>]*>", html) == []


def test_nothing_can_be_added_changed_or_deleted(admin_client: Client, rows: list[Any]) -> None:
    for row in rows:
        change = addresses(row)[1]
        assert admin_client.post(change, {"_save": "yes"}).status_code == 403
        assert admin_client.get(change.replace("/change/", "/delete/")).status_code == 403
        assert admin_client.post(change.replace("/change/", "/delete/"), {"post": "yes"}).status_code == 403
        assert admin_client.get(addresses(row)[0] + "add/").status_code == 403
        assert type(row).objects.filter(pk=row.pk).exists()


def test_looking_needs_the_permission(staff: Staff, rows: list[Any]) -> None:
    client = staff("view_event")

    statuses = {row._meta.model_name: {client.get(each).status_code for each in addresses(row)} for row in rows}

    assert statuses == {"function": {403}, "run": {403}, "event": {200}, "wait": {403}}


@pytest.mark.urls("tests.admin.shared.test_pages")
def test_another_site_shows_the_same_and_links_to_itself(rows: list[Any]) -> None:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))

    for row in rows:
        for address in addresses(row, "operations"):
            html = client.get(address).text
            assert address.startswith("/operations/")
            assert "/operations/django_durable/" in html
            assert 'href="/admin/' not in html


def test_the_history_of_a_run_can_be_read(admin_client: Client, rows: list[Any]) -> None:
    html = admin_client.get(addresses(rows[1])[1]).text
    [history] = re.findall(r'href="([^"]+)" class="historylink"', html)

    assert admin_client.get(history).status_code == 200


def test_filters_offer_no_counts(admin_client: Client, rows: list[Any]) -> None:
    for row in rows:
        assert "_facets" not in admin_client.get(addresses(row)[0]).text


def test_the_models_are_registered_once_on_the_default_site() -> None:
    request = RequestFactory().get("/admin/")
    request.user = User.objects.create_superuser("root")

    [app] = admin.site.get_app_list(request, "django_durable")

    assert app["name"] == "Durable functions"
    assert {each["object_name"] for each in app["models"]} == {"Event", "Function", "Run", "Wait"}
