"""Django's pages for a new password, which mails lead to. Mounted at ``account/``."""

from django.contrib.auth.views import PasswordResetCompleteView, PasswordResetConfirmView
from django.urls import path, reverse_lazy

from apps.mail.links import TOKENS

done = PasswordResetCompleteView.as_view(template_name="mail/reset_done.html")
choose = PasswordResetConfirmView.as_view(
    template_name="mail/reset_form.html", success_url=reverse_lazy("mail-reset-done"), token_generator=TOKENS
)

urlpatterns = [
    path("reset/done/", done, name="mail-reset-done"),
    path("reset/<uidb64>/<token>/", choose, name="mail-reset"),
]
