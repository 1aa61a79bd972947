// A practice call's page: it makes the call, brings the configuration, and is told of all that happens.

import { address, line } from "./voice-line.js";

const AGAIN = 1000; // milliseconds until a configuration that nobody has confirmed is sent again
const REASONS = {
  hung_up: "the telephone has hung up", media_closed: "the telephone's connection has gone", reset: "all calls were reset",
  no_credits: "no tokens are left", provider_refused: "the provider refuses", provider_away: "the provider is away",
  timeout: "the other side did not come", lost: "its gateway has died", ended: "ended here",
};

/** Watches a new call until `signal` says stop. `page` is told what to show. */
export async function call({ key, instructions, page, signal }) {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  page.state("connecting");
  const asked = await fetch("/v1/calls", { method: "POST", headers, body: "{}", signal }).catch(() => null);
  if (signal.aborted) return undefined;
  if (!asked?.ok) return page.over((await asked?.json().catch(() => null))?.detail ?? "The gateway does not answer.");
  const made = await asked.json();
  page.media(made.media_url);
  const path = `/v1/calls/${made.call}`;

  let retry = null;
  let ended = null;
  let said = 0;
  const end = () => fetch(`${path}/end`, { method: "POST", headers, keepalive: true }).catch(() => {});
  signal.addEventListener("abort", () => {
    clearInterval(retry);
    ws.stop();
    if (ended === null) end();
  });
  const configure = () => {
    page.step("connect", "Connected to the call");
    page.state("configuring");
    clearInterval(retry);
    const send = () => {
      page.step("config-sent", "The configuration is sent");
      ws.say({ type: "job.config", version: 1, config: { instructions } });
    };
    send();
    retry = setInterval(send, AGAIN);
  };
  const status = ({ status: now, reason }) => {
    page.step(`status-${now}`, `The call is ${now}`);
    if (now === "created") page.begin(); // all is told from the beginning
    else if (now === "ended") {
      ended = `The call has ended: ${REASONS[reason] ?? reason}.`;
      clearInterval(retry);
      page.step("end-received", ended);
      page.state("ending");
    } else if (now !== "waiting") page.state(now);
  };
  const received = () => {
    clearInterval(retry);
    page.step("config-received", "The gateway has the configuration");
    page.state("waiting");
  };
  const heard = (event) => {
    switch (event.type) {
      case "call.status_changed": return status(event);
      case "config.received": return received();
      case "config.applied": return page.step("config-applied", "The voice has the configuration");
      case "call.transcript": return page.said(`said-${++said}`, event.role, event.text);
      case "call.log": return page.step("log", event.text);
      case "error":
        clearInterval(retry); // the same again would be refused again
        page.step("error", event.error.message);
        return page.trouble(event.error.message);
      default: return undefined;
    }
  };
  const ws = line({
    dial: () => new WebSocket(address(`${path}/frontend`)),
    opened: configure,
    heard,
    lost: (code) => {
      clearInterval(retry);
      page.step("lost", `The gateway was lost (${code}); trying again`);
      page.state("reconnecting");
    },
    over: (code, reason) => page.over(ended ?? (reason || `The gateway closed the call (${code}).`)),
  });
  return { end };
}
