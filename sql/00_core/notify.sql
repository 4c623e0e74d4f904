-- All databases of a server share one NOTIFY queue. A listener with an open transaction keeps the queue from being
-- emptied. Once it is full, each COMMIT that notifies fails, and neither a subtransaction nor an exception handler can
-- catch that. One transaction cannot fill the second half of the queue, so notifications stop at one half and workers
-- poll.
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
  'Notify a channel when the transaction commits. Returns false, and sends nothing, while the server''s NOTIFY queue is '
  'half full or more. Workers then find the work by polling.';
