"""The pages of the example."""

from __future__ import annotations

from accounts.views import home, runs
from blog.views import posts
from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

urlpatterns = [
    path("", home, name="home"),
    path("runs/", runs, name="runs"),
    path("posts/", posts, name="posts"),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url="/static/icon.svg")),
]
