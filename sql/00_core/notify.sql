-- The queue of notifications belongs to the whole server. A listener that sits in a transaction keeps it from being emptied,
-- and once it is full each COMMIT that notifies fails: neither a subtransaction nor an exception handler can catch that.
-- Below half of the queue one transaction cannot fill the rest, so a notification is given up early and pollers take over.
create function core.notify(p_channel text, p_payload text default '') returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_notification_queue_usage() >= 0.5 then
    return false;
  end if;
  perform pg_notify(p_channel, p_payload);
  return true;
end
$$;

comment on function core.notify(text, text) is
  'Notify a channel when the transaction commits. Returns false, and sends nothing, while the NOTIFY queue of the server is '
  'half full or more; workers then find the work by polling.';
