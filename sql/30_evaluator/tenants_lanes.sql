create trigger tenants_lanes
after insert on public.tenants
referencing new table as new_tenants
for each statement
execute function evaluator._add_tenant_lanes();

comment on trigger tenants_lanes on public.tenants is 'Inserts the lanes of a tenant before it has a reading.';
