-- A kind that is not named here needs an address and nothing else.
create function delivery._required_members(p_kind text) returns text[]
language sql immutable
set search_path = pg_catalog, pg_temp
return case p_kind
  when 'webhook' then array['url', 'secret']
  when 'pagerduty' then array['routing_key']
  else array['url']
end;

comment on function delivery._required_members(text) is
  'Return the members that the configuration of a channel of this kind must have; the one besides url is its secret.';
