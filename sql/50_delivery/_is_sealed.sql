-- The shortest box, of an empty list of previous secrets, has 67 letters.
-- A plain expression without SET, so that the planner inlines it.
create function delivery._is_sealed(p_member text) returns boolean
language sql
immutable
return coalesce(p_member ~ '^sealed:1:[0-9a-f]{16}:[A-Za-z0-9_-]{64,}$', false);

comment on function delivery._is_sealed(text) is
  'Whether a member of a channel''s configuration is sealed: for which key, and the ciphertext (docs/delivery.md).';
