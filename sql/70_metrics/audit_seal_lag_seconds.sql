create view metrics.audit_seal_lag_seconds as
select greatest(coalesce(extract(epoch from core.now() - audit._unsealed_since()), 0), 0)::double precision as value;

comment on view metrics.audit_seal_lag_seconds is
  'Age of the oldest committed audit event that is in no sealed block, 0 if there is none.';
