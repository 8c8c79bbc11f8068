// An agent on the official SDK of ACP. Its prompts are words:
//
//   echo TEXT      one update with the text
//   permit         asks for permission, and says what it was answered
//   wait           until the turn is cancelled
//   count FILE     numbered updates until the file is there
//   crash          ends with code 9
import * as acp from "@agentclientprotocol/sdk";
import fs from "node:fs";
import { Readable, Writable } from "node:stream";
import { setTimeout } from "node:timers/promises";

const turns = new Map();

const say = (client, sessionId, text) =>
  client.notify("session/update", {
    sessionId,
    update: { sessionUpdate: "agent_message_chunk", content: { type: "text", text } },
  });

async function prompt({ params, client }) {
  const { sessionId } = params;
  const [word, ...rest] = params.prompt[0].text.split(" ");
  const turn = new AbortController();
  turns.set(sessionId, turn);
  if (word === "echo") {
    await say(client, sessionId, rest.join(" "));
  } else if (word === "permit") {
    const answer = await client.request("session/request_permission", {
      sessionId,
      toolCall: { toolCallId: "call-1", title: "Write a file", kind: "edit", status: "pending" },
      options: [
        { optionId: "yes", name: "Allow", kind: "allow_once" },
        { optionId: "no", name: "Reject", kind: "reject_once" },
      ],
    });
    await say(client, sessionId, answer.outcome.optionId ?? answer.outcome.outcome);
  } else if (word === "count") {
    for (let i = 0; !fs.existsSync(rest[0]); i++) {
      await say(client, sessionId, String(i));
      await setTimeout(i % 3);
    }
  } else if (word === "wait") {
    await new Promise((resolve) => turn.signal.addEventListener("abort", resolve));
  } else if (word === "crash") {
    process.exit(9);
  }
  return { stopReason: turn.signal.aborted ? "cancelled" : "end_turn" };
}

acp
  .agent({ name: "agent-of-the-tests" })
  .onRequest("initialize", () => ({ protocolVersion: acp.PROTOCOL_VERSION, agentCapabilities: {} }))
  .onRequest("session/new", () => ({ sessionId: `session-${process.pid}` }))
  .onRequest("session/prompt", prompt)
  .onNotification("session/cancel", ({ params }) => turns.get(params.sessionId)?.abort())
  .connect(acp.ndJsonStream(Writable.toWeb(process.stdout), Readable.toWeb(process.stdin)));
