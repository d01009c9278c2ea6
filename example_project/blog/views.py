"""The posts page: read posts and write one."""

from __future__ import annotations

from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

import django_durable as durable

from .forms import PostForm
from .models import Post


@require_http_methods(["GET", "HEAD", "POST"])
def posts(request: HttpRequest) -> HttpResponse:
    """Show the newest posts and the form; publish a new post."""
    form = PostForm(request.POST or None)
    if form.is_valid():
        post = publish(form)
        messages.success(request, f"“{post.title}” is published.")
        return redirect("posts")
    newest = Post.objects.select_related("author")[:20]
    return render(request, "blog/posts.html", {"form": form, "posts": newest})


@transaction.atomic
def publish(form: PostForm) -> Post:
    """Store the post and send ``app/post.created``: the database has both, or neither."""
    post: Post = form.save()
    durable.send_event("app/post.created", {"user": {"id": post.author_id}, "post": {"id": post.pk}})
    return post
