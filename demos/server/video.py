"""H.264 over WebRTC, where aiortc is installed: the same pictures as a video stream."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from time import monotonic
from typing import Any

import numpy as np
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame

from magi_world.demos.server.pictures import decode
from magi_world.demos.server.programs import enlarged
from magi_world.demos.server.visitor import Visitor

CLOCK = 90_000  # ticks a second of video over RTP
MOST = 2 * 16  # connections at once; each encodes


class WorldTrack(VideoStreamTrack):
    """What one visitor sees, at the world's pace."""

    kind = "video"

    def __init__(self, visitor: Visitor) -> None:
        super().__init__()
        self._visitor = visitor
        self._begun: float | None = None
        self._sent = 0
        self._shown: tuple[bytes, np.ndarray] | None = None

    async def recv(self) -> VideoFrame:
        """The frame that is shown now; it is waited for until its time."""
        now = monotonic()
        self._begun = now if self._begun is None else self._begun
        fps = self._visitor.served.spec.fps
        due = self._begun + self._sent / fps
        await asyncio.sleep(max(0.0, due - now))
        picture = self._visitor.picture
        if picture is None:
            height, width = self._visitor.served.spec.frame_size
            frame = np.zeros((height, width, 3), np.uint8)
        elif self._shown is not None and self._shown[0] is picture:
            frame = self._shown[1]
        else:
            # Codecs blur small pictures, so they are enlarged here.
            frame = await asyncio.to_thread(lambda: enlarged(decode(picture)))
            self._shown = (picture, frame)
        video = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        video.pts, video.time_base = int(self._sent * CLOCK / fps), Fraction(1, CLOCK)
        self._sent += 1
        return video


class Videos:
    """The video connections of a server."""

    def __init__(self) -> None:
        self._open: set[RTCPeerConnection] = set()

    async def answer(self, visitor: Visitor, offer: Any) -> dict[str, str]:
        """Accept a browser's offer {"sdp", "type"} to receive a video.
        Raises ValueError: no offer, or too many connections.
        """
        if not isinstance(offer, dict) or offer.get("type") != "offer":
            raise ValueError('the offer must be {"type": "offer", "sdp": ...}')
        if len(self._open) >= MOST:
            raise ValueError(f"{MOST} videos are being sent, the most; pictures go on without")
        peer = RTCPeerConnection()
        self._open.add(peer)

        async def changed() -> None:
            if peer.connectionState in ("failed", "closed", "disconnected"):
                await self._drop(peer)

        peer.on("connectionstatechange", changed)
        try:
            await peer.setRemoteDescription(RTCSessionDescription(str(offer.get("sdp")), "offer"))
            peer.addTrack(WorldTrack(visitor))
            codecs = RTCRtpSender.getCapabilities("video").codecs
            h264 = [codec for codec in codecs if codec.mimeType == "video/H264"]
            for transceiver in peer.getTransceivers():
                transceiver.setCodecPreferences(h264)
            await peer.setLocalDescription(await peer.createAnswer())
        except Exception as error:
            await self._drop(peer)
            raise ValueError(f"the offer cannot be answered: {error}") from error
        return {"type": peer.localDescription.type, "sdp": peer.localDescription.sdp}

    async def close(self) -> None:
        for peer in list(self._open):
            await self._drop(peer)

    async def _drop(self, peer: RTCPeerConnection) -> None:
        self._open.discard(peer)
        await peer.close()
