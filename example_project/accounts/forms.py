"""The sign-up form."""

from __future__ import annotations

from django import forms
from django.contrib.auth.models import User


class SignUpForm(forms.Form):
    """Asks for an e-mail address, and nothing else."""

    email = forms.EmailField(label="E-mail", max_length=150)

    def clean_email(self) -> str:
        """Refuse an address that has signed up already."""
        email: str = self.cleaned_data["email"]
        if User.objects.filter(username__iexact=email).exists():
            raise forms.ValidationError("This address has signed up already.")
        return email
