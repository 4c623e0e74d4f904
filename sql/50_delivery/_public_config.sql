-- The addresses of Slack and Teams are secrets themselves: whoever knows one can post. A webhook's may carry one in its
-- query.
create function delivery._public_config(p_kind text, p_config jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return jsonb_strip_nulls(jsonb_build_object(
  'url',
  case p_kind
    when 'webhook' then regexp_replace(p_config ->> 'url', '\?.*$', '?…')
    else regexp_replace(p_config ->> 'url', '^(https?://[^/?#]*).*$', '\1/…')
  end
));

comment on function delivery._public_config(text, jsonb) is
  'What of a channel''s configuration may be shown: the address without its secret part, no secret, no routing key.';
