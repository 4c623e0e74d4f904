create view metrics.audit_sealed_events_total as
select coalesce((select first_position + row_count from audit.blocks order by block_no desc limit 1), 0) as value;

comment on view metrics.audit_sealed_events_total is 'Audit events sealed so far, including dropped ones.';
