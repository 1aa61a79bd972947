"""What the CLI can say of how a run ended, word by word, and the error class that each word is.

The words are the CLI's own, read out of its program: tests/contracts/test_vocabulary.py fails
when a CLI has one that is not here. What is done about a class is in worker/failures/verdicts.py;
people read of it in worker/failures/sentences.py and docs/errors.md.

    result.terminal_reason         why its loop ended                      ENDINGS
    result.api_error               the failure by name, where it has one   CAUSES
    result.startup_failure_reason  why it did not start                    STARTUP
    result.subtype                 what older ones say instead             SUBTYPES
    assistant.error                of what kind the API's error was        KINDS

None stands for: other fields decide.
"""

PARKED = "authentication_failed"  # no key, no sign-in, or one that is refused

# A turn that ended like this came to its end. (A hook may have said that it is enough.)
WHOLE = frozenset({"completed", "stop_hook_prevented"})

ENDINGS: dict[str, str | None] = {
    "completed": None,
    "stop_hook_prevented": None,
    "api_error": None,
    "image_error": None,
    "blocking_limit": "blocking_limit",
    "rapid_refill_breaker": "context_thrashing",
    "prompt_too_long": "prompt_too_long",
    "model_error": "model_error",
    "malformed_tool_use_exhausted": "malformed_tool_use",
    "aborted_streaming": "aborted",
    "aborted_tools": "aborted",
    "background_requested": "aborted",
    "hook_stopped": "host_policy",
    "tool_deferred": "host_policy",
    "tool_deferred_unavailable": "session_unusable",
    "max_turns": "max_turns",
    "budget_exhausted": "budget_exhausted",
    "structured_output_retry_exhausted": "structured_output_retry_exhausted",
    "turn_setup_failed": "turn_setup_failed",
}

SUBTYPES: dict[str, str | None] = {
    "success": None,
    "error_during_execution": None,
    "error_max_turns": "max_turns",
    "error_max_budget_usd": "budget_exhausted",
    "error_max_structured_output_retries": "structured_output_retry_exhausted",
}

KINDS: dict[str, str | None] = {
    "authentication_failed": PARKED,
    "oauth_org_not_allowed": PARKED,
    "account_on_hold": PARKED,
    "verification_required": PARKED,
    "cloud_credential_error": PARKED,
    "billing_error": "billing_error",
    "rate_limit": "rate_limit",
    "overloaded": "overloaded",
    "model_not_found": "model_not_found",
    "max_output_tokens": "max_output_tokens",
    "invalid_request": None,
    "server_error": None,
    "unknown": None,
}

CAUSES: dict[str, str] = {
    "max_output_tokens": "max_output_tokens",
    "dlp_request_denied": "request_refused",
    "claude_code_version_too_old": "cli_too_old",
    "safety_monitor_blocked": "safety_blocked",
    "hook_denied": "host_policy",
    "effort_requires_thinking": "settings_refused",
    "advisor_incompatible": "settings_refused",
    "field_not_granted": "settings_refused",
    "tool_history_mismatch": "session_unusable",
    "autocompact_thrashing": "context_thrashing",
    "pdf_too_large": "request_refused",
    "pdf_password_protected": "request_refused",
    "media_removed": "request_refused",
    "message_over_context_limit": "message_too_long",
    "long_context_credits_required": "prompt_too_long",
    "no_response": "unreachable",
    "connection_failed": "unreachable",
    "stream_idle_timeout": "unreachable",
    "computer_slept": "unreachable",
    "tls_untrusted_ca": "certificate_refused",
    "tls_cert_signature_failure": "certificate_refused",
    "network_edge_blocked": "network_refused",
    "gateway_content_type": "malformed_response",
    "empty_completion": "malformed_response",
    "malformed_tool_use_exhausted": "malformed_tool_use",
    "stored_login_refused": PARKED,
    "oauth_refresh_store_refused": PARKED,
    "provider_credentials": PARKED,
    "gateway_signin_required": PARKED,
    "gateway_session_expired": PARKED,
    "api_key_auth_disabled": PARKED,
    "org_disabled_credential": PARKED,
    "invalid_credential_header": PARKED,
    "named_profile_unusable": PARKED,
    "model_requires_usage_credits": "billing_error",
    "consent_unanswered": "billing_error",
    "no_allowed_fallback": "model_not_found",
    "model_substitution_disabled": "model_not_found",
    "usage_limit_reached": "rate_limit",
    "unattended_start_limit": "rate_limit",
    "unattended_start_unconfirmed": "rate_limit",
}

STARTUP: dict[str, str] = {
    "org_pin_api_key_conflict": PARKED,
    "org_verify_failed": PARKED,
    "org_pin_mismatch": PARKED,
    "org_config_refused": PARKED,
    "gateway_signin_required": PARKED,
    "gateway_access_denied": PARKED,
    "cli_version_too_old": "cli_too_old",
    "cwd_unavailable": "workspace_missing",
    "org_config_required_unavailable": "unreachable",
    "session_held_by_background": "session_unusable",
    "worktree_resume_refused": "session_unusable",
    "worktree_unverified": "session_unusable",
    "provider_not_allowed": "start_refused",
    "managed_settings_invalid": "start_refused",
    "managed_settings_not_delivered": "start_refused",
    "remote_settings_required_unavailable": "start_refused",
    "initialize_fields_not_delivered": "start_refused",
    "initialize_not_first": "start_refused",
    "sideload_flags_disabled": "start_refused",
    "proxy_invalid": "start_refused",
    "temp_dir_unusable": "start_refused",
    "shell_tool_missing": "start_refused",
    "bypass_root": "start_refused",
    "sandbox_required_unavailable": "start_refused",
    "config_file_invalid": "start_refused",
}

STATUSES = {
    401: PARKED,
    403: PARKED,
    408: "unreachable",
    413: "request_too_large",
    429: "rate_limit",
    432: "budget_exhausted",  # of the egress proxy, and no API's (egress/answers.py)
    433: "egress_refused",
    529: "overloaded",
}


def class_of(
    kind: str | None,
    *,
    status: int | None = None,
    ending: str | None = None,
    cause: str | None = None,
) -> str:
    """The error class of a run that failed like this: what is most particular decides.

    What the CLI says in no word of the table is a class of its own name.
    """
    word = CAUSES.get(cause or "") or ENDINGS.get(ending or "") or KINDS.get(kind or "")
    if word:
        return word
    if status is not None:
        return _of_status(status) or kind or "unknown"
    if kind == "server_error":
        return "unreachable"
    if kind in (None, "unknown") and ending == "api_error":
        return "malformed_response"
    return kind or ending or "unknown"


def _of_status(status: int) -> str | None:
    if status in STATUSES:
        return STATUSES[status]
    if status >= 500:
        return "server_error"
    return "request_refused" if status >= 400 else None
