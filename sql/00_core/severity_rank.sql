create function core.severity_rank(p_severity text) returns smallint
language sql immutable parallel safe
return case p_severity when 'info' then 1 when 'warning' then 2 when 'error' then 3 when 'critical' then 4 end;

comment on function core.severity_rank(text) is 'Return the rank of a severity: info 1, warning 2, error 3, critical 4.';
