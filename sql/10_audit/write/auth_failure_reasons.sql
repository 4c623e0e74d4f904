-- The closed list of reasons for which a request is refused. AuthFailureReason in services/shared/metrics.py has the
-- same ones, and tests/shared/test_single_lists.py compares both and finds further copies.
create view audit.auth_failure_reasons as
select r.reason, r.status
from (
  values
    ('missing_token', 401),
    ('invalid_token', 401),
    ('token_too_large', 401),
    ('expired', 401),
    ('revoked', 401),
    ('invalid_claims', 401),
    ('unknown_key', 401),
    ('auth_unavailable', 503),
    ('rate_limited', 429),
    ('forbidden', 403)
) as r (reason, status);

comment on view audit.auth_failure_reasons is
  'Reasons for which a request is refused: details.reason of its audit event, with the HTTP status of the answer.';
