-- Spraying and stuffing start from the thresholds of elastic's public detection rules (20 users with at most 3 tries in
-- 15 minutes; 10 users with at least 3 tries in an hour). The other two lie above what people and broken clients do in
-- the recorded benign day of the tests.
create view audit.attack_thresholds as
select t.kind, t.time_window, t.min_failures, t.min_accounts, t.min_tries, t.max_tries, t.quiet_after
from (
  values
    ('brute_force', interval '15 minutes', 30, 1, 1, null::integer, interval '30 minutes'),
    ('credential_stuffing', interval '1 hour', 30, 10, 3, null, interval '2 hours'),
    ('password_spraying', interval '15 minutes', 20, 20, 1, 3, interval '30 minutes'),
    ('success_after_failures', interval '1 hour', 10, 1, 1, null, interval '2 hours')
) as t (kind, time_window, min_failures, min_accounts, min_tries, max_tries, quiet_after);

comment on view audit.attack_thresholds is
  'Definition of an attack: within time_window at least min_failures failed tries on at least min_accounts accounts, '
  'counting accounts with min_tries to max_tries tries each. brute_force: one account. credential_stuffing: from one '
  'address (of IPv6 a /64). password_spraying: from any addresses. success_after_failures: one account that is then let '
  'in. It ends after quiet_after without another try. A try is a token that names an account and has no valid signature '
  '(reasons invalid_token and unknown_key). Example: select * from audit.attack_thresholds;';
