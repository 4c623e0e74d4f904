create function core.number_text(p_value double precision) returns text
language sql immutable parallel safe
return case
  when p_value = 0 then '0'
  when abs(p_value) >= 1e-6 and abs(p_value) < 1e21 then trim_scale(p_value::text::numeric)::text
  else p_value::text
end;

comment on function core.number_text(double precision) is
  'Return a number with all digits that distinguish it, without an exponent from 1e-6 to 1e21: 1000001 and 0.00001.';
