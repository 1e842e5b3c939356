-- The behavior of wrk's clients: each thread is one client, with its own connection and session.
--
-- Arguments: METHOD STOP_FILE [COOKIE]
--   GET   requests the page; clients with a session keep the cookie that is set
--   POST  makes a change without effect, with COOKIE or without
-- Prints "answered N" from time to time, "lost" when a request is lost, "stopped" when a client has seen the file STOP_FILE,
-- and a line of JSON at the end.

local REPORT_EVERY = 50
local clients = {}

function setup(thread)
   clients[#clients + 1] = thread
   thread:set("number", #clients)
end

-- In one write, because the clients share the output. A client whose output nobody reads stops: its benchmark was killed.
local function say(line)
   io.write(line .. "\n")
   if not io.flush() and wrk.thread then
      wrk.thread:stop()
   end
end

-- Of four clients, two use keep-alive, and one of each kind has a session.
function init(args)
   method, stop_file = args[1], args[2]
   keeps_connection = number % 2 == 0
   in_session = number % 4 < 2
   waiting, stopped, answered, cut, sessions, refused = false, false, 0, 0, 0, {}
   -- wrk calls the first client's function once before it starts.
   tried = number > 1
   prepare(in_session and args[3] or nil)
end

function prepare(cookie)
   local headers = { Cookie = cookie, Connection = not keeps_connection and "close" or nil }
   if method == "POST" then
      headers["Content-Type"] = "application/json"
      text = wrk.format("POST", "/delay", headers, '{"delay":0}')
   else
      text = wrk.format("GET", "/", headers)
   end
end

-- wrk continues with the next request after a broken connection.
function request()
   if not tried then
      tried = true
      return text
   end
   if waiting then
      cut = cut + 1
      say("lost")
   end
   waiting = true
   return text
end

function response(status, headers)
   waiting, answered = false, answered + 1
   if status ~= 200 then
      say("lost")
      local kind = tostring(status)
      refused[kind] = (refused[kind] or 0) + 1
   end
   local cookie = headers["set-cookie"]
   if cookie and in_session then
      sessions = sessions + 1
      prepare(cookie:match("^[^;]+"))
   end
   if answered % REPORT_EVERY == 0 then
      say("answered " .. REPORT_EVERY)
   end
   -- A client stops between two requests, so that none is in flight at the end.
   local stop = io.open(stop_file)
   if stop then
      stop:close()
      stopped = true
      say("stopped")
      wrk.thread:stop()
   end
end

function done(summary, latency)
   local cut, unanswered, sessions, refused = 0, 0, 0, {}
   for _, client in ipairs(clients) do
      unanswered = unanswered + (client:get("stopped") and 0 or 1)
      cut = cut + client:get("cut")
      sessions = sessions + client:get("sessions")
      for kind, count in pairs(client:get("refused")) do
         refused[kind] = (refused[kind] or 0) + count
      end
   end
   local by_status = {}
   for kind, count in pairs(refused) do
      by_status[#by_status + 1] = string.format('"%s":%d', kind, count)
   end
   local errors = summary.errors
   say(string.format(
      '{"answered":%d,"cut":%d,"unanswered":%d,"broken":%d,"late":%d,"slowest_us":%d,"sessions":%d,"status":{%s}}',
      summary.requests, cut, unanswered, errors.connect + errors.read + errors.write, errors.timeout, latency.max, sessions,
      table.concat(by_status, ",")))
end
