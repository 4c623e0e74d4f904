-- The shortest sealed value, an empty list of previous secrets, has 67 letters.
-- No SET clauses, so that the planner inlines it.
create function delivery._is_sealed(p_member text) returns boolean
language sql
immutable
return coalesce(p_member ~ '^sealed:1:[0-9a-f]{16}:[A-Za-z0-9_-]{64,}$', false);

comment on function delivery._is_sealed(text) is
  'Return true if a member of a channel''s configuration is sealed. It then holds the key''s name and the ciphertext '
  '(docs/delivery.md).';
